_base_ = '../_base_/mask-rcnn_mobilenet-v2_fpn_1x_coco.py'

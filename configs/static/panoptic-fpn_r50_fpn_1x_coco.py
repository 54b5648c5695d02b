_base_ = '../_base_/panoptic-fpn_r50_fpn_1x_coco.py'

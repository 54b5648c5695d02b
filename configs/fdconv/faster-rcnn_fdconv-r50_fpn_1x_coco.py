# the paper reports a box AP of 39.4
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/detection.py']
model = dict(
    backbone=dict(
        type='FDConvResNet',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/fdconv-resnet50.pth', prefix='backbone.')))

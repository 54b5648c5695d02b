_base_ = '../_base_/panoptic-fpn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        type='DCDCResNet',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dcdc-resnet50.pth', prefix='backbone.')))

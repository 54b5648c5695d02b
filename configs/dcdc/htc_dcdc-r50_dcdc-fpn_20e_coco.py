_base_ = ['mmdet::htc/htc_r50_fpn_20e_coco.py', '../_base_/detection.py']
model = dict(
    backbone=dict(
        type='DCDCResNet',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dcdc-resnet50.pth', prefix='backbone.')),
    neck=dict(type='DynamicFPN', fpn_conv_cfg=dict(type='DCDC2d')))

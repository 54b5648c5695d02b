_base_ = ['mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(
        type='DCDCResNet',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dcdc-resnet50.pth', prefix='backbone.')))

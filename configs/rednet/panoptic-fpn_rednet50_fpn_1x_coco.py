_base_ = '../_base_/panoptic-fpn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        type='RedNet',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/rednet50.pth', prefix='backbone.')))

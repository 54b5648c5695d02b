# a small DCDC RetinaNet on handwritten digits, trained from scratch
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/digits_detection.py']

model = dict(
    backbone=dict(
        type='DCDCResNet',
        depth=26,
        stem_channels=32,
        base_channels=16,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None),
    neck=dict(
        type='DynamicFPN',
        in_channels=[64, 128, 256, 512],
        out_channels=64,
        num_outs=4,
        fpn_conv_cfg=dict(type='DCDC2d')),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(strides=[8, 16, 32, 64])),
    test_cfg=dict(nms_pre=200))

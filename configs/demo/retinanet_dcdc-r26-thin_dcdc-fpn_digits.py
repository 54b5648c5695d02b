# a small DCDC RetinaNet on handwritten digits, trained from scratch
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/digits_detection.py',
    '../_base_/dcdc-r26-thin.py',
]

model = dict(
    backbone={{_base_.dcdc_r26_thin}},
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

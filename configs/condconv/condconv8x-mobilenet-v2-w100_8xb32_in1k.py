_base_ = [
    '../_base_/mobilenet-v2_in1k.py',
    '../_base_/dynconv_mm.py',
]
model = dict(
    backbone=dict(type='CondConvMobileNetV2'),
    head=dict(type='CondConvLinearClsHead'))

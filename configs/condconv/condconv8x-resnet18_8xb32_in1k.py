_base_ = [
    '../_base_/resnet18_in1k.py',
    '../_base_/dynconv_mm.py',
]
model = dict(
    backbone=dict(type='CondConvResNet'),
    head=dict(type='CondConvLinearClsHead'))

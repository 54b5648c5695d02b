_base_ = [
    '../_base_/resnet18_in1k.py',
    '../_base_/dynconv_mm.py',
    '../_base_/temperature_annealing.py',
]
model = dict(
    backbone=dict(type='DyConvResNet'),
    head=dict(type='DropoutLinearClsHead', dropout=0.1))

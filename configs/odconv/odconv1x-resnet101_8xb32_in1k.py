_base_ = [
    '../_base_/resnet101_in1k.py',
    '../_base_/dynconv_mm.py',
    '../_base_/temperature_annealing.py',
]
model = dict(
    backbone=dict(type='ODConvResNet', kernel_num=1),
    head=dict(type='DropoutLinearClsHead', dropout=0.2))

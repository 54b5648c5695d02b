_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='DCDResNet'), head=dict(type='DCDLinearClsHead', dropout=0.1))

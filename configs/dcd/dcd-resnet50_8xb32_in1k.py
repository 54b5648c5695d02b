# DCD, Table 4b: 77.9, with dropout 0.1 (5); ODConv, Table 2: 76.92. ODConv's A.2 does not say whether DCD has dropout
# there.
_base_ = ['../_base_/resnet50_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='DCDResNet'), head=dict(type='DCDLinearClsHead', dropout=0.1))

# ODConv, Table 1: 74.18, trained as the other methods (A.2), without mixup and label smoothing. A.2 does not say
# whether DCD has dropout there: 0.1, as in DCD's paper and the command of its released code.
_base_ = ['../_base_/mobilenet-v2_in1k.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(type='DCDMobileNetV2'),
    head=dict(type='DCDLinearClsHead', dropout=0.1))

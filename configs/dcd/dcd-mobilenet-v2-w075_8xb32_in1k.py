# DCD, 5: 300 epochs, batch 256, one cosine cycle from 0.05 to 0, weight decay 2e-5, dropout 0.1
_base_ = ['../_base_/mobilenet-v2_in1k.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(type='DCDMobileNetV2', widen_factor=0.75),
    head=dict(type='DCDLinearClsHead', dropout=0.1))
optim_wrapper = dict(optimizer=dict(weight_decay=2e-5))
param_scheduler = dict(T_max=300, end=300)
train_cfg = dict(max_epochs=300)

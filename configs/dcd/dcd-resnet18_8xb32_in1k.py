_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='DCDResNet'), head=dict(type='DCDLinearClsHead'))

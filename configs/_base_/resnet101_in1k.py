# as resnet18_in1k.py
_base_ = 'mmpretrain::resnet/resnet101_8xb32_in1k.py'
model = dict(backbone=dict(zero_init_residual=False))

# DCD, Table 4b: 63.5, one basic block a stage
_base_ = ['../_base_/resnet18_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='StaticResNet', depth=10))

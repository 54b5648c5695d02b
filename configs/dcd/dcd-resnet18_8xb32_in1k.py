# DCD, Table 4b: 73.1; ODConv, Table 2: 72.33. Both papers give this recipe.
_base_ = ['../_base_/resnet18_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='DCDResNet'), head=dict(type='DCDLinearClsHead'))

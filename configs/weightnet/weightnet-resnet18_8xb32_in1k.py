# ODConv, Table 2: 71.56
_base_ = ['../_base_/resnet18_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='WeightNetResNet'))

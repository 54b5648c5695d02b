# ODConv, Table 2: 77.51
_base_ = ['../_base_/resnet50_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='WeightNetResNet'))

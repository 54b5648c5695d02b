# ODConv, Table 2: 76.79
_base_ = ['../_base_/resnet50_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='CGCResNet'))

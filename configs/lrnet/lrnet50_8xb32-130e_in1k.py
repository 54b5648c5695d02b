# DCDC, Table I: 77.3
_base_ = ['../_base_/resnet50_130e_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='LRNet'))

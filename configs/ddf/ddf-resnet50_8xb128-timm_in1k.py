# DCDC, Table I: 79.1*
_base_ = ['../_base_/resnet50_timm_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='DDFResNet'))

# DCDC, Table II: 78.3, quoted; the recipe is that of DDF in the same table
_base_ = ['../_base_/resnet50_timm_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='DwCondConvResNet'))

# DCDC, Table I: 77.8*
_base_ = ['../_base_/resnet50_timm_in1k.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(
        type='StaticResNet', plugins=[dict(cfg=dict(type='DynConvSELayer'), position='after_conv3')]))

# as _base_/resnet18_in1k.py, with SE behind the last convolution of each block (ODConv, Table 2)
_base_ = ['../_base_/resnet18_in1k.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(
        type='StaticResNet', plugins=[dict(cfg=dict(type='DynConvSELayer'), position='after_conv2')]))

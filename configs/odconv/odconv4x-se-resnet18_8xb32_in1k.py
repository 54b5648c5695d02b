# ODConv, Table 14: 74.04, with SE behind the last convolution of each block
_base_ = './odconv4x-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(plugins=[dict(cfg=dict(type='DynConvSELayer'), position='after_conv2')]))

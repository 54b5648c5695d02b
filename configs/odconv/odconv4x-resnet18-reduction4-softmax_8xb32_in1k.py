# ODConv, Table 11: 73.97, softmax in place of sigmoid for α_s, with r = 1/4
_base_ = './odconv4x-resnet18-reduction4_8xb32_in1k.py'
model = dict(backbone=dict(spatial_activation='softmax'))

# ODConv, Tables 7, 10 and 11: 74.33, with r = 1/4
_base_ = './odconv4x-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(reduction=1 / 4))

# ODConv, Table 5: 73.11, with r = 1/8
_base_ = './odconv1x-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(reduction=1 / 8))

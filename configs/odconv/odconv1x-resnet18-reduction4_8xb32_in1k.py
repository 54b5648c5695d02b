# ODConv, Tables 5, 7, 10, 11 and 16: 73.41, with r = 1/4
_base_ = './odconv1x-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(reduction=1 / 4))

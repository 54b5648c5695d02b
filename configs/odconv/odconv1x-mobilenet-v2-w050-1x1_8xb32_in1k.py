# ODConv, Table 9: 67.43, in the 1×1 convolutions alone
_base_ = './odconv1x-mobilenet-v2-w050_8xb32_in1k.py'
model = dict(backbone=dict(placement='1x1'))

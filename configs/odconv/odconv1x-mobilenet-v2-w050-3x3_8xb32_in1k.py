# ODConv, Table 9: 67.54, in the 3×3 convolutions alone, but the first
_base_ = './odconv1x-mobilenet-v2-w050_8xb32_in1k.py'
model = dict(backbone=dict(placement='3x3'))

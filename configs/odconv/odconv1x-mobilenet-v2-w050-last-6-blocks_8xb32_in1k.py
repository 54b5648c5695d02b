# ODConv, Table 9: 67.29, in the last 6 residual blocks alone
_base_ = './odconv1x-mobilenet-v2-w050_8xb32_in1k.py'
model = dict(backbone=dict(placement='last_6_blocks'))

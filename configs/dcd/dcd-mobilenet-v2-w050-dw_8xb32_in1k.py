# DCD, Table 3b: 68.3, in the depthwise convolutions alone
_base_ = './dcd-mobilenet-v2-w050-pw_8xb32_in1k.py'
model = dict(backbone=dict(dynamic_layers=('depthwise', )))

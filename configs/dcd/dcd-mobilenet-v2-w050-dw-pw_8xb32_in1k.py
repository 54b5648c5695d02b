# DCD, Table 3b: 69.6, in depthwise and 1×1 convolutions
_base_ = './dcd-mobilenet-v2-w050-pw_8xb32_in1k.py'
model = dict(backbone=dict(dynamic_layers=('depthwise', 'pointwise')))

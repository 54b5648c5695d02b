# DCD, Table 4a: 70.2
_base_ = './dcd-mobilenet-v2-w075_8xb32_in1k.py'
model = dict(backbone=dict(widen_factor=0.5))

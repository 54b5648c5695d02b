# DCD, Table 4a: 66.6
_base_ = './dcd-mobilenet-v2-w050_8xb32_in1k.py'
model = dict(backbone=dict(widen_factor=0.35))

# DCDC, Table I: 77.4
_base_ = './san10_8xb32_in1k.py'
model = dict(backbone=dict(depth=19))

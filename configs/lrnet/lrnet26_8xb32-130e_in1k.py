# DCDC, Table I: 75.7
_base_ = './lrnet50_8xb32-130e_in1k.py'
model = dict(backbone=dict(depth=26))

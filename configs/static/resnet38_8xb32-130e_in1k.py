# DCDC, Table I: 76.0
_base_ = './resnet26_8xb32-130e_in1k.py'
model = dict(backbone=dict(depth=38))

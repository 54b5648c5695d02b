# DCDC, Table I: 76.9
_base_ = './sa-resnet50_8xb32-130e_in1k.py'
model = dict(backbone=dict(depth=38))

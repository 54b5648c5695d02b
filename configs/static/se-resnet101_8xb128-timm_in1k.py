# DCDC, Table I: 79.3*
_base_ = './se-resnet50_8xb128-timm_in1k.py'
model = dict(backbone=dict(depth=101))

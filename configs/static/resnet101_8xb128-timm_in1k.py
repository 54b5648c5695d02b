# DCDC, Table I: 78.9*
_base_ = './resnet50_8xb128-timm_in1k.py'
model = dict(backbone=dict(depth=101))

# DCDC, Table I: 80.8*
_base_ = './dcdc-resnet50_8xb128-timm_in1k.py'
model = dict(backbone=dict(depth=101))

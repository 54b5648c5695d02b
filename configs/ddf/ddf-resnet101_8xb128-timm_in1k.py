# DCDC, Table I: 80.2*
_base_ = './ddf-resnet50_8xb128-timm_in1k.py'
model = dict(backbone=dict(depth=101))

# DCDC, Table IV: 77.67, λ = 2.0
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(gsi_ratio=2.0))

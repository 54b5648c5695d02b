# DCDC, Table IV: 77.53, λ = 1.5
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(gsi_ratio=1.5))

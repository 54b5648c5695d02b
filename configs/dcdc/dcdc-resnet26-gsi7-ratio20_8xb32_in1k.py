# DCDC, Table IV: 77.90, dynamic convolutions of 7×7 in GSI, λ = 2.0
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(gsi_kernel_size=7, gsi_ratio=2.0))

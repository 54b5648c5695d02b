# DCDC, Table IV: 77.39, dynamic convolutions of 3×3 in GSI
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(gsi_kernel_size=3))

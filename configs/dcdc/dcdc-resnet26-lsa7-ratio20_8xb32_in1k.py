# DCDC, Table IV: 77.80, depthwise convolutions of 7×7 in LSA, λ = 2.0
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(lsa_dw_kernel_size=7, gsi_ratio=2.0))

# DCDC, Table IV: 77.63, depthwise convolutions of 7×7 in LSA
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(lsa_dw_kernel_size=7))

# DCDC, Table IV: 77.55, depthwise convolutions of 5×5 in LSA
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(lsa_dw_kernel_size=5))

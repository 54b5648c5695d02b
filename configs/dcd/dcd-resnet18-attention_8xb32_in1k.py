# DCD, Table 1b: 71.5, ΛW₀ alone
_base_ = './dcd-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(fusion=None))

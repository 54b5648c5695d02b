# DCD, Table 1a: 68.2, ΛW₀ alone
_base_ = './dcd-mobilenet-v2-w050-pw_8xb32_in1k.py'
model = dict(backbone=dict(fusion=None))

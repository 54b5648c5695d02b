# DCD, Table 3a: 68.5, W₀ and 2 diagonal blocks PΦQᵀ
_base_ = './dcd-mobilenet-v2-w050-pw-fusion_8xb32_in1k.py'
model = dict(backbone=dict(blocks=2))

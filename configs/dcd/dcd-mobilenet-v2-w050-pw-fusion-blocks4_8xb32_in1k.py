# DCD, Table 3a: 68.4, W₀ and 4 diagonal blocks PΦQᵀ
_base_ = './dcd-mobilenet-v2-w050-pw-fusion_8xb32_in1k.py'
model = dict(backbone=dict(blocks=4))

# DCD, Tables 1a and 3a: 69.2, W₀ + PΦQᵀ
_base_ = './dcd-mobilenet-v2-w050-pw_8xb32_in1k.py'
model = dict(backbone=dict(channel_attention=False))

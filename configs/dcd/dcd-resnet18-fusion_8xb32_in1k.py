# DCD, Table 1b: 72.8, W₀ + PΦQᵀ
_base_ = './dcd-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(channel_attention=False))

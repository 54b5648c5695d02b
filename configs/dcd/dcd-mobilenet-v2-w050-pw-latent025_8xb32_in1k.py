# DCD, Table 2: 68.7, L × 0.25
_base_ = './dcd-mobilenet-v2-w050-pw_8xb32_in1k.py'
model = dict(backbone=dict(latent_multiplier=0.25))

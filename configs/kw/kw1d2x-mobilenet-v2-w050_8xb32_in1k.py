# 65.20% in the paper
_base_ = 'kw1d2x-mobilenet-v2-w100_8xb32_in1k.py'
model = dict(backbone=dict(widen_factor=0.5))

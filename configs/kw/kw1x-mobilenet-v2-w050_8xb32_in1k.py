# 68.29% in the paper
_base_ = 'kw1x-mobilenet-v2-w100_8xb32_in1k.py'
model = dict(backbone=dict(widen_factor=0.5))

_base_ = './dyconv4x-mobilenet-v2-w100_8xb32_in1k.py'
model = dict(backbone=dict(widen_factor=0.75), head=dict(dropout=0.1))

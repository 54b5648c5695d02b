_base_ = '../_base_/mobilenet-v2_in1k.py'
model = dict(backbone=dict(widen_factor=0.5))

# ODConv, Table 1: 71.92
_base_ = './dcd-mobilenet-v2-w100_8xb32-150e_in1k.py'
model = dict(backbone=dict(widen_factor=0.75))

# ODConv, Table 13: 75.68
_base_ = './odconv4x-mobilenet-v2-w100_8xb32_in1k.py'
param_scheduler = dict(T_max=300, end=300)
train_cfg = dict(max_epochs=300)

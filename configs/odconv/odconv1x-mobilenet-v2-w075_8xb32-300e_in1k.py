# ODConv, Table 13: 73.03
_base_ = './odconv1x-mobilenet-v2-w075_8xb32_in1k.py'
param_scheduler = dict(T_max=300, end=300)
train_cfg = dict(max_epochs=300)

# ODConv, Table 13: 65.10
_base_ = './mobilenet-v2-w050_8xb32_in1k.py'
param_scheduler = dict(T_max=300, end=300)
train_cfg = dict(max_epochs=300)

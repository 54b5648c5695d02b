# ODConv, Table 13: 70.08
_base_ = './dcd-mobilenet-v2-w050_8xb32-150e_in1k.py'
param_scheduler = dict(T_max=300, end=300)
train_cfg = dict(max_epochs=300)

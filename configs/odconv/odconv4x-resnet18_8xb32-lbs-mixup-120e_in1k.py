# ODConv, Table 15: 74.59. The learning rate of the last 30 epochs is that of the last 10 of 100: A.2 divides it every
# 30
_base_ = './odconv4x-resnet18_8xb32-lbs-mixup_in1k.py'
train_cfg = dict(max_epochs=120)

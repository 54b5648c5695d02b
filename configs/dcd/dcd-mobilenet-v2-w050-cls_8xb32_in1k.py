# DCD, Table 3b: 66.6, in the classifier alone
_base_ = './dcd-mobilenet-v2-w050_8xb32_in1k.py'
model = dict(backbone=dict(dynamic_layers=()))

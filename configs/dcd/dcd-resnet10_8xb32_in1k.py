# DCD, Table 4b: 68.8, one block a stage
_base_ = './dcd-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(depth=10))

# DCD, Table 3b: 70.0, in depthwise and 1×1 convolutions and the classifier
_base_ = './dcd-mobilenet-v2-w050_8xb32_in1k.py'
model = dict(backbone=dict(dynamic_layers=('depthwise', 'pointwise')))

# DCDC, Table III: 77.4, a static 3×3 convolution in place of GSI
_base_ = './dcdc-resnet26_8xb32_in1k.py'
model = dict(backbone=dict(gsi='conv_large'))

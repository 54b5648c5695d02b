# ODConv, 3.1: 70.33, the static network's 70.25 and 0.08, with routing weights of 1, which do not depend on the image
_base_ = './condconv8x-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(attention=False), head=dict(attention=False))

# ODConv, 3.1: 70.39, the static network's 70.25 and 0.14, with attentions of 1, which have no temperature
_base_ = './dyconv4x-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(attention=False))
custom_hooks = []

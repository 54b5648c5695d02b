# resnet18-thin_digits with DCD
_base_ = './resnet18-thin_digits.py'

model = dict(backbone=dict(type='DCDResNet'))

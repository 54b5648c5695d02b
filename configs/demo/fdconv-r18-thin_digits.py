# resnet18-thin_digits with FDConv
_base_ = './resnet18-thin_digits.py'

model = dict(backbone=dict(type='FDConvResNet', kernel_num=16))

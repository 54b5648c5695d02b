# resnet18-thin_digits with DyConv, annealed over the first of its epochs
_base_ = './resnet18-thin_digits.py'

model = dict(backbone=dict(type='DyConvResNet', kernel_num=4))
custom_hooks = [dict(type='TemperatureAnnealingHook', start=30., end=1., epochs=2)]

# resnet18-thin_digits with KernelWarehouse, annealed over the first of its epochs
_base_ = ['./resnet18-thin_digits.py']

model = dict(backbone=dict(type='KWResNet', temperature=1.))
custom_hooks = [dict(type='TemperatureAnnealingHook', start=1., end=0., epochs=2)]

# 74.68% in the paper; SGD, 150 epochs, batch 256, learning rate 0.05, as ODConv's MobileNetV2
_base_ = ['../_base_/mobilenet-v2_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='KWMobileNetV2', temperature=1.))
custom_hooks = [dict(type='TemperatureAnnealingHook', start=1., end=0., epochs=15)]

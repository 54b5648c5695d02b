# 82.51% in the paper: all convolutions and linear layers, which are 1×1 convolutions here
_base_ = ['mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(
        type='Dynamicized',
        module='ConvNeXt',
        linear_pw_conv=False,
        op=dict(type='KWConv2d', norm_cfg=dict(type='LN'), temperature=1.),
        include=['*', 'downsample_layers.0'],  # the stem too
        keep_function=False))
custom_hooks = [dict(type='TemperatureAnnealingHook', start=1., end=0., epochs=20)]

_base_ = './se-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(plugins=[dict(cfg=dict(type='DynConvECALayer'), position='after_conv2')]))

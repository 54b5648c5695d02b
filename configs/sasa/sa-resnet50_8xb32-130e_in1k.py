# DCDC, Table I: 77.6. As SASA's A.2 trains it, but on fewer devices: Nesterov's momentum, 130 epochs, a linear warm-up
# of 10 to 1.6 for a batch of 4096, which is 0.1 for 256, then a cosine, and an average of the weights that forgets
# 0.0001 of itself a step. The paper says nothing of weight decay (1e-4, as usual) or of where the warm-up starts.
_base_ = ['../_base_/resnet50_130e_in1k.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(type='SAResNet'),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss', loss_weight=1.0)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=120, by_epoch=True, begin=10, end=130, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', momentum=0.0001, priority='ABOVE_NORMAL')]

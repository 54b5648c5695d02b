# Involution 4.1 and DCDC IV-A1: 130 epochs, batch 256, one cosine cycle from 0.1 to 0 after 5 epochs of linear warm-up
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=125, by_epoch=True, begin=5, end=130, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=130)

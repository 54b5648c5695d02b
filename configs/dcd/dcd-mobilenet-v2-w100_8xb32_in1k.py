# DCD, 5: mixup and label smoothing at width 1.0; how strong, it does not say: mmpretrain's usual values
_base_ = './dcd-mobilenet-v2-w075_8xb32_in1k.py'
model = dict(
    backbone=dict(widen_factor=1.0),
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)))

# KernelWarehouse's recipe: 300 epochs, AdamW, learning rate 4e-3 at a batch of 4096, weight decay 0.05, 20 epochs of
# warm-up, RandAugment, mixup, cutmix, label smoothing and random erasing, as ConvNeXt's; τ falls from 1 to 0 meanwhile.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
    'dynconv_mm.py',
]
model = dict(
    backbone=dict(type='KWResNet', temperature=1.),
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
custom_hooks = [dict(type='TemperatureAnnealingHook', start=1., end=0., epochs=20)]

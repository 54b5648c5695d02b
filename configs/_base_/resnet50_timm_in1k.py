# DDF's recipe, in timm, by which DCDC trains for the starred results of its Table I (IV-A1: "the same protocol", 130
# epochs). Neither paper prints it; this is what DDF's released training script does: SGD with Nesterov's momentum,
# batch 8 × 128, learning rate 0.4, no weight decay of norms and biases, a warm-up of 5 epochs from 1e-4, a cosine over
# 120 epochs to 1e-5 and 10 epochs at that, all once an epoch; RandAugment, random erasing and label smoothing. Not as
# there: timm erases up to 3 rectangles that share the area, mmpretrain 1, and draws RandAugment's interpolation, too.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
bgr_mean = [103.53, 116.28, 123.675]
bgr_std = [57.375, 57.12, 58.395]
model = dict(
    backbone=dict(zero_init_residual=True),
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomChoice',
        transforms=[[dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bilinear')],
                    [dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic')]]),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=7,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(x) for x in bgr_mean], interpolation='bicubic')),
    dict(type='RandomErasing', erase_prob=0.4, mode='rand', min_area_ratio=0.02, max_area_ratio=1 / 3,
         fill_color=bgr_mean, fill_std=bgr_std),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(lr=0.4, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4 / 0.4, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', T_max=120, eta_min=1e-5, by_epoch=True, begin=0, end=121),
]
train_cfg = dict(max_epochs=130)
auto_scale_lr = dict(base_batch_size=1024)

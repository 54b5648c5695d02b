# A small ODConv detector on the handwritten digits that tools/make_digits_coco.py makes, trained from
# scratch in minutes on two CPU cores. It is also the pattern for your own data in COCO format: inherit a
# config, name your classes, point to your files, and change what your data needs. What it changes is
# grouped by reason; the first group is all that an ordinary fine-tuning on your own data needs.
_base_ = '../odconv/faster-rcnn_odconv1x-r50_fpn_1x_coco.py'

# --- 1. your data ---------------------------------------------------------------------------------
data_root = 'data/digits/'
metainfo = dict(
    classes=('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'),
    palette=[(230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
             (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212)])
image_scale = (160, 128)  # width, height

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='PackDetInputs'),  # no RandomFlip: a mirrored digit is another one, or none
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

# --- 2. small and from scratch, for a demonstration without a GPU and without pre-training ---------
strides = [8, 16, 32, 64]  # of the pyramid's maps; digits are large, so the finest map is left out
model = dict(
    backbone=dict(
        depth=18,
        stem_channels=16,
        base_channels=16,
        frozen_stages=-1,  # nothing is pre-trained, so nothing is frozen …
        norm_eval=False,  # … and batch norms learn
        init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64, start_level=1, num_outs=4),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], strides=strides)),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64, featmap_strides=strides[:3]),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=len(metainfo['classes']))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=48))),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)))

# --- 3. a schedule for it ---------------------------------------------------------------------------
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs,
         convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
custom_hooks = [dict(type='EpochSeedHook')]  # after `--resume`, training goes on as if never interrupted

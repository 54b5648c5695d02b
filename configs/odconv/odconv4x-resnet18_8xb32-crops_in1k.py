# ODConv, Table 2: 73.97, cropped as A.2 words it: "images are resized to 256 × 256 first, and then 224 × 224 crops are
# randomly sampled". The other configs crop as the released code does.
_base_ = './odconv4x-resnet18_8xb32_in1k.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='RandomCrop', crop_size=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

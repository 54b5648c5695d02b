# a small ResNet-18 on pictures of handwritten digits; the networks with dynamic convolutions beside it inherit it
_base_ = '../_base_/digits_classification.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2, 1)),  # its last maps have 4 × 4 positions
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, )))

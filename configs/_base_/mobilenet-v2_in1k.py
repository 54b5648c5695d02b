# ODConv A.2: MobileNetV2, 150 epochs, batch 256, one cosine cycle from 0.05 to 0
_base_ = [
    'mmpretrain::_base_/models/mobilenet_v2_1x.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_coslr.py',
    'mmpretrain::_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.05, weight_decay=4e-5))
param_scheduler = dict(T_max=150, end=150, convert_to_iter_based=True)
train_cfg = dict(max_epochs=150)

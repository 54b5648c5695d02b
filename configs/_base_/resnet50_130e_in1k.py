# The recipe of involution's released RedNets, with which DCDC (IV-A1) says that its own is consistent: SGD with
# momentum 0.9, weight decay 1e-4 and 130 epochs, 5 of linear warm-up, in one cosine cycle. Both papers give no more. Of
# the released configs are label smoothing, Nesterov's momentum, the start of the warm-up at a quarter of the learning
# rate, the cosine, which falls once an epoch and during the warm-up too, and last norms of the blocks that start at 0.
# They train with batch 2048 and learning rate 0.8; DCDC with 256 and 0.1, as here.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
model = dict(
    backbone=dict(zero_init_residual=True),
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
optim_wrapper = dict(optimizer=dict(nesterov=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.25, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=130, by_epoch=True, begin=0, end=130),
]
train_cfg = dict(max_epochs=130)

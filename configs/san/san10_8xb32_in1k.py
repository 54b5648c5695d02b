# DCDC, Table I: 75.5. By SAN's recipe: SGD with momentum 0.9 and weight decay 1e-4, batch 256, a learning
# rate of 0.1 that falls to 0 in a cosine over 100 epochs, label smoothing 0.1, random crops and flips.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../_base_/dynconv_mm.py']
model = dict(
    backbone=dict(_delete_=True, type='SAN', depth=10),
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=100, by_epoch=True, begin=0, end=100,
                       convert_to_iter_based=True)
train_cfg = dict(max_epochs=100)

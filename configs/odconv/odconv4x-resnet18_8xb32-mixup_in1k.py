# ODConv, Table 15: 74.05. How strong the mixup is, the paper does not say: mmpretrain's usual 0.2
_base_ = './odconv4x-resnet18_8xb32_in1k.py'
model = dict(train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)))

# ODConv, Table 15: 74.18
_base_ = './odconv4x-resnet18_8xb32-mixup_in1k.py'
model = dict(head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))

# ODConv, Table 15: 74.15. How strong the smoothing is, the paper does not say: the usual 0.1
_base_ = './odconv4x-resnet18_8xb32_in1k.py'
model = dict(head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))

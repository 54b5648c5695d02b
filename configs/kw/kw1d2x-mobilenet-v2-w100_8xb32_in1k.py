# 72.59% in the paper; the classifier is made of cells too
_base_ = 'kw1x-mobilenet-v2-w100_8xb32_in1k.py'
model = dict(
    backbone=dict(
        cell_num_ratio=1 / 2,
        cell_in_ratio=1 / 2,
        cell_out_ratio=1 / 2,
        reduction=1 / 32,
        share_pointwise=False,
        static_pointwise=5),
    head=dict(type='KWLinearClsHead', cell_num_ratio=1 / 2, cell_in_ratio=1 / 40, reduction=1 / 32, temperature=1.))

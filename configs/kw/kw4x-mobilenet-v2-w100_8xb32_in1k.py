# 75.92% in the paper
_base_ = 'kw1x-mobilenet-v2-w100_8xb32_in1k.py'
model = dict(backbone=dict(cell_num_ratio=4., share_pointwise=False))

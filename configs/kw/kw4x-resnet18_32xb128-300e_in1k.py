# 76.05% in the paper
_base_ = 'kw1x-resnet18_32xb128-300e_in1k.py'
model = dict(backbone=dict(cell_num_ratio=4.))

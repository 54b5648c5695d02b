# 81.05% in the paper
_base_ = '../_base_/resnet50_kw-300e_in1k.py'
model = dict(backbone=dict(cell_num_ratio=4.))

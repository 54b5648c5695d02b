# 79.30% in the paper
_base_ = '../_base_/resnet50_kw-300e_in1k.py'
model = dict(
    backbone=dict(cell_num_ratio=1 / 2, cell_in_ratio=1 / 2, cell_out_ratio=1 / 2, nonlocal_basis_ratio=1 / 16))

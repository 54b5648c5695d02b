# 74.77% in the paper
_base_ = '../_base_/resnet50_kw-300e_in1k.py'
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))

# ODConv, Table 12: 74.16, α_s, α_c and α_f for each kernel
_base_ = './odconv4x-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(share_attention=False))

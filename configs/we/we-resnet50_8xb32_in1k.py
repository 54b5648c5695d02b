# ODConv, Table 2: 77.10, which it quotes from the paper of weight excitation
_base_ = ['../_base_/resnet50_in1k.py', '../_base_/dynconv_mm.py']
model = dict(backbone=dict(type='WEResNet'))

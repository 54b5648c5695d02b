# ODConv, Table 7: 73.13, α_s and α_c alone, with r = 1/4
_base_ = './odconv1x-resnet18-reduction4_8xb32_in1k.py'
model = dict(backbone=dict(attentions=('spatial', 'channel')))

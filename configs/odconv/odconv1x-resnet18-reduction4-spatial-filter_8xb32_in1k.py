# ODConv, Table 7: 72.80, α_s and α_f alone, with r = 1/4
_base_ = './odconv1x-resnet18-reduction4_8xb32_in1k.py'
model = dict(backbone=dict(attentions=('spatial', 'filter')))

# ODConv, Table 16: 73.47, features pooled to 3×3 before the attentions, with r = 1/4
_base_ = './odconv1x-resnet18-reduction4_8xb32_in1k.py'
model = dict(backbone=dict(spatial_pool_size=3))

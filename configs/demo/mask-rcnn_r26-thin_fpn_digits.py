# mask-rcnn_dcdc-r26-thin_dcdc-fpn_digits with static convolutions, to be drawn beside it
_base_ = './mask-rcnn_dcdc-r26-thin_dcdc-fpn_digits.py'

model = dict(backbone=dict(type='StaticResNet'), neck=dict(fpn_conv_cfg=dict(type='Conv2d')))

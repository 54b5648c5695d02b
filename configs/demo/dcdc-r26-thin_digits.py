# DCDC-ResNet-26, small, on pictures of handwritten digits
_base_ = './resnet18-thin_digits.py'

model = dict(
    backbone=dict(type='DCDCResNet', depth=26, stem_channels=32),
    head=dict(in_channels=512))

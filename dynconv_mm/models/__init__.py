"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain is installed."""
from .backbones import (
    CondConvMobileNetV2,
    CondConvResNet,
    DCDMobileNetV2,
    DCDResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    ODConvMobileNetV2,
    ODConvResNet,
)
from .heads import CondConvLinearClsHead, DCDLinearClsHead, DropoutLinearClsHead

__all__ = [
    'CondConvLinearClsHead', 'CondConvMobileNetV2', 'CondConvResNet', 'DCDLinearClsHead', 'DCDMobileNetV2', 'DCDResNet',
    'DropoutLinearClsHead', 'DyConvMobileNetV2', 'DyConvResNet', 'ODConvMobileNetV2', 'ODConvResNet'
]

"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain is installed."""
from .backbones import (
    CondConvMobileNetV2,
    CondConvResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    ODConvMobileNetV2,
    ODConvResNet,
)
from .heads import CondConvLinearClsHead, DropoutLinearClsHead

__all__ = [
    'CondConvLinearClsHead', 'CondConvMobileNetV2', 'CondConvResNet', 'DropoutLinearClsHead', 'DyConvMobileNetV2',
    'DyConvResNet', 'ODConvMobileNetV2', 'ODConvResNet'
]

"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain and necks where mmdet is installed."""
from .backbones import (
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
)
from .heads import CondConvLinearClsHead, DCDLinearClsHead, DropoutLinearClsHead
from .necks import DynamicFPN

__all__ = [
    'CondConvLinearClsHead', 'CondConvMobileNetV2', 'CondConvResNet', 'DCDCResNet', 'DCDLinearClsHead',
    'DCDMobileNetV2', 'DCDResNet', 'DropoutLinearClsHead', 'DyConvMobileNetV2', 'DyConvResNet', 'DynamicFPN',
    'ODConvMobileNetV2', 'ODConvResNet', 'RedNet'
]

"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain is installed."""
from .backbones import DCDMobileNetV2, DCDResNet, ODConvMobileNetV2, ODConvResNet
from .heads import DCDLinearClsHead, DropoutLinearClsHead

__all__ = [
    'DCDLinearClsHead', 'DCDMobileNetV2', 'DCDResNet', 'DropoutLinearClsHead', 'ODConvMobileNetV2', 'ODConvResNet'
]

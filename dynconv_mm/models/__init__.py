"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain is installed."""
from .backbones import DCDCResNet, ODConvMobileNetV2, ODConvResNet, RedNet
from .heads import DropoutLinearClsHead

__all__ = ['DCDCResNet', 'DropoutLinearClsHead', 'ODConvMobileNetV2', 'ODConvResNet', 'RedNet']

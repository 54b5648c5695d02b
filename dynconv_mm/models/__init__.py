"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain is installed."""
from .backbones import ODConvMobileNetV2, ODConvResNet
from .heads import DropoutLinearClsHead

__all__ = ['DropoutLinearClsHead', 'ODConvMobileNetV2', 'ODConvResNet']

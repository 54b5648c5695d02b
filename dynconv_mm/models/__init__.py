"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain and necks where mmdet is installed."""
from .backbones import DCDCResNet, ODConvMobileNetV2, ODConvResNet, RedNet
from .heads import DropoutLinearClsHead
from .necks import DynamicFPN

__all__ = ['DCDCResNet', 'DropoutLinearClsHead', 'DynamicFPN', 'ODConvMobileNetV2', 'ODConvResNet', 'RedNet']

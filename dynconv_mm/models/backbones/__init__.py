"""One ResNet and one MobileNetV2; a method is its layer plus the rule of which convolutions it replaces."""
from .dcdc import DCDCResNet
from .mobilenet_v2 import MobileNetV2
from .odconv import ODConvMobileNetV2, ODConvResNet
from .rednet import RedNet
from .resnet import ResNet

__all__ = ['DCDCResNet', 'MobileNetV2', 'ODConvMobileNetV2', 'ODConvResNet', 'RedNet', 'ResNet']

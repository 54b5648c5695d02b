"""One ResNet and one MobileNetV2; a method is its layer plus the rule of which convolutions it replaces."""
from .dcd import DCDMobileNetV2, DCDResNet
from .mobilenet_v2 import MobileNetV2
from .odconv import ODConvMobileNetV2, ODConvResNet
from .resnet import ResNet

__all__ = ['DCDMobileNetV2', 'DCDResNet', 'MobileNetV2', 'ODConvMobileNetV2', 'ODConvResNet', 'ResNet']

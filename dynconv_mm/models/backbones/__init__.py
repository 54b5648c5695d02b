"""One ResNet and one MobileNetV2; a method is its layer plus the rule of which convolutions it replaces."""
from .cgc import CGCResNet
from .condconv import CondConvMobileNetV2, CondConvResNet
from .dcd import DCDMobileNetV2, DCDResNet
from .dcdc import DCDCResNet
from .ddf import DDFResNet
from .depthwise import DwCondConvResNet, DwWeightNetResNet
from .dyconv import DyConvMobileNetV2, DyConvResNet
from .fdconv import FDConvMobileNetV2, FDConvResNet
from .kw import KWMobileNetV2, KWResNet
from .lrnet import LRNet
from .mobilenet_v2 import MobileNetV2
from .odconv import ODConvMobileNetV2, ODConvResNet
from .rednet import RedNet
from .resnet import ResNet
from .san import SAN
from .sasa import SAResNet
from .we import WEResNet
from .weightnet import WeightNetResNet

__all__ = [
    'CGCResNet', 'CondConvMobileNetV2', 'CondConvResNet', 'DCDCResNet', 'DCDMobileNetV2', 'DCDResNet', 'DDFResNet',
    'DwCondConvResNet', 'DwWeightNetResNet', 'DyConvMobileNetV2', 'DyConvResNet', 'FDConvMobileNetV2', 'FDConvResNet',
    'KWMobileNetV2', 'KWResNet', 'LRNet', 'MobileNetV2', 'ODConvMobileNetV2', 'ODConvResNet', 'RedNet', 'ResNet', 'SAN',
    'SAResNet', 'WEResNet', 'WeightNetResNet'
]

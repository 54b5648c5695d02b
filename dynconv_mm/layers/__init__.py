"""Convolution layers: parameters and attention; how they are executed stands in ``functional``."""
from .condconv import CondConv2d
from .dcd import DCDConv2d
from .dcdc import DCDC2d
from .dyconv import DyConv2d
from .feature_attention import CBAM, ECALayer, SELayer
from .involution import Involution2d
from .odconv import ODConv2d
from .temperature import TemperatureMixin

__all__ = [
    'CBAM', 'CondConv2d', 'DCDC2d', 'DCDConv2d', 'DyConv2d', 'ECALayer', 'Involution2d', 'ODConv2d', 'SELayer',
    'TemperatureMixin'
]

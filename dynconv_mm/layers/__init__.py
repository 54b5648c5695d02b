"""Convolution layers: parameters and attention; how they are executed stands in ``functional``."""
from .dcd import DCDConv2d
from .odconv import ODConv2d
from .temperature import TemperatureMixin

__all__ = ['DCDConv2d', 'ODConv2d', 'TemperatureMixin']

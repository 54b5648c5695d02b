"""Convolution layers: parameters and attention; how they are executed stands in ``functional``."""
from .odconv import ODConv2d
from .temperature import TemperatureMixin

__all__ = ['ODConv2d', 'TemperatureMixin']

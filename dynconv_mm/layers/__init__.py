"""Convolution layers: parameters and attention; how they are executed stands in ``functional``."""
from .dcdc import DCDC2d
from .involution import Involution2d
from .odconv import ODConv2d
from .temperature import TemperatureMixin

__all__ = ['DCDC2d', 'Involution2d', 'ODConv2d', 'TemperatureMixin']

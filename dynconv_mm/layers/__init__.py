"""Convolution layers: parameters and attention; how they are executed stands in ``functional``."""
from .cgc import CGConv2d
from .condconv import CondConv2d
from .dcd import DCDConv2d
from .dcdc import DCDC2d
from .ddf import DDFConv2d
from .dyconv import DyConv2d
from .fdconv import FDConv2d
from .involution import Involution2d
from .kernel_warehouse import KernelWarehouse, build_warehouses
from .kw import KWConv2d, KWLinear
from .lrnet import LocalRelation2d
from .lsconv import LSConv2d
from .odconv import ODConv2d
from .san import PairwiseSelfAttention2d
from .sasa import StandAloneSelfAttention2d
from .temperature import TemperatureMixin
from .we import WEConv2d
from .weightnet import WeightNetConv2d

__all__ = [
    'CGConv2d', 'CondConv2d', 'DCDC2d', 'DCDConv2d', 'DDFConv2d', 'DyConv2d', 'FDConv2d', 'Involution2d', 'KWConv2d',
    'KWLinear', 'KernelWarehouse', 'LSConv2d', 'LocalRelation2d', 'ODConv2d', 'PairwiseSelfAttention2d',
    'StandAloneSelfAttention2d', 'TemperatureMixin', 'WEConv2d', 'WeightNetConv2d', 'build_warehouses'
]

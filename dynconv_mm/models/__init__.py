"""Networks: backbones on mmengine and mmcv.cnn, heads where mmpretrain and necks where mmdet is installed."""
from . import heads, necks
from .backbones import (
    SAN,
    CGCResNet,
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DDFResNet,
    DwCondConvResNet,
    DwWeightNetResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    FDConvMobileNetV2,
    FDConvResNet,
    KWMobileNetV2,
    KWResNet,
    LRNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
    SAResNet,
    WeightNetResNet,
    WEResNet,
)
from .own_areas import OwnAreaAveraged, average_own_areas
from .plugins import CBAM, ECALayer, SELayer
from .warehoused import Warehoused

# what ``import *`` gives without mmpretrain and mmdet
__all__ = [
    'CBAM', 'CGCResNet', 'CondConvMobileNetV2', 'CondConvResNet', 'DCDCResNet', 'DCDMobileNetV2', 'DCDResNet',
    'DDFResNet', 'DwCondConvResNet', 'DwWeightNetResNet', 'DyConvMobileNetV2', 'DyConvResNet', 'ECALayer',
    'FDConvMobileNetV2', 'FDConvResNet', 'KWMobileNetV2', 'KWResNet', 'LRNet', 'ODConvMobileNetV2', 'ODConvResNet',
    'OwnAreaAveraged', 'RedNet', 'SAN', 'SAResNet', 'SELayer', 'WEResNet', 'Warehoused', 'WeightNetResNet',
    'average_own_areas'
]


def __getattr__(name: str) -> type:
    """A head or neck, see :func:`~dynconv_mm.compat.optional.import_when_needed`."""
    for package in (heads, necks):
        if name in package.__all__:
            return getattr(package, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

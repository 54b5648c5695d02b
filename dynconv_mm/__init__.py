"""Dynamic convolution for PyTorch and OpenMMLab.

Where mmengine and mmcv are installed, importing it registers its layers, models, hooks, transform and metric. Elsewhere
it has the layers and ``dynamicize``, and its parts ``functional``, ``layers`` and ``conversion``, which need torch
alone and are imported when they are asked for.
"""
from importlib import import_module
from typing import TYPE_CHECKING

from .compat.installed import HAS_OPENMMLAB
from .version import __version__

if HAS_OPENMMLAB or TYPE_CHECKING:
    from .compat.versions import check_versions

    check_versions()

    from . import models, registry
    from .compat.checkpoint import wrap_mmengine_loaders
    from .compat.fuse_conv_bn import install_fuse_conv_bn
    from .conversion import Dynamicized, dynamicize
    from .datasets import LoadCocoPanopticAnnotations
    from .engine.hooks import (
        AtomicCheckpointHook,
        EpochSeedHook,
        TemperatureAnnealingHook,
        WholeCheckpointHook,
    )
    from .evaluation import PanopticQualityMetric
    from .layers import (
        CGConv2d,
        CondConv2d,
        DCDC2d,
        DCDConv2d,
        DDFConv2d,
        DyConv2d,
        FDConv2d,
        Involution2d,
        KWConv2d,
        LocalRelation2d,
        LSConv2d,
        ODConv2d,
        PairwiseSelfAttention2d,
        StandAloneSelfAttention2d,
        WEConv2d,
        WeightNetConv2d,
        build_warehouses,
    )
    from .model_zoo import get_model, list_models
    from .models import (
        CBAM,
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
        ECALayer,
        FDConvMobileNetV2,
        FDConvResNet,
        KWMobileNetV2,
        KWResNet,
        LRNet,
        ODConvMobileNetV2,
        ODConvResNet,
        OwnAreaAveraged,
        RedNet,
        SAResNet,
        SELayer,
        Warehoused,
        WeightNetResNet,
        WEResNet,
        average_own_areas,
    )

    wrap_mmengine_loaders()
    install_fuse_conv_bn()

__all__ = [
    'AtomicCheckpointHook', 'CBAM', 'CGCResNet', 'CGConv2d', 'CondConv2d', 'CondConvMobileNetV2', 'CondConvResNet',
    'DCDC2d', 'DCDCResNet', 'DCDConv2d', 'DCDMobileNetV2', 'DCDResNet', 'DDFConv2d', 'DDFResNet', 'DwCondConvResNet',
    'DwWeightNetResNet', 'DyConv2d', 'DyConvMobileNetV2', 'DyConvResNet', 'Dynamicized', 'ECALayer', 'EpochSeedHook',
    'FDConv2d', 'FDConvMobileNetV2', 'FDConvResNet', 'Involution2d', 'KWConv2d', 'KWMobileNetV2', 'KWResNet', 'LRNet',
    'LSConv2d', 'LoadCocoPanopticAnnotations', 'LocalRelation2d', 'ODConv2d', 'ODConvMobileNetV2', 'ODConvResNet',
    'OwnAreaAveraged', 'PairwiseSelfAttention2d', 'PanopticQualityMetric', 'RedNet', 'SAN', 'SAResNet', 'SELayer',
    'StandAloneSelfAttention2d', 'TemperatureAnnealingHook', 'WEConv2d', 'WEResNet', 'Warehoused', 'WeightNetConv2d',
    'WeightNetResNet', 'WholeCheckpointHook', '__version__', 'average_own_areas', 'build_warehouses', 'dynamicize',
    'get_model', 'list_models', 'registry'
]


def __getattr__(name: str) -> object:
    """A head or neck, see :func:`~dynconv_mm.compat.optional.import_when_needed`; without OpenMMLab, a layer."""
    if HAS_OPENMMLAB and (name in models.heads.__all__ or name in models.necks.__all__):
        return getattr(models, name)
    if HAS_OPENMMLAB or name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    for part in map(import_module, ('dynconv_mm.layers', 'dynconv_mm.conversion')):
        if hasattr(part, name):
            return getattr(part, name)
    raise ImportError(f'{name} is built on mmengine and mmcv, which are not both installed: `pip install mmengine '
                      'mmcv-lite`. Layers and dynamicize need neither')

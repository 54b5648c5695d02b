"""Dynamic convolution for OpenMMLab: importing it registers its layers, models, hooks, transform and metric."""
from .compat.versions import check_versions

check_versions()

from . import models, registry  # noqa: E402
from .compat.checkpoint import wrap_mmengine_loaders  # noqa: E402
from .compat.fuse_conv_bn import install_fuse_conv_bn  # noqa: E402
from .conversion import Dynamicized, dynamicize  # noqa: E402
from .datasets import LoadCocoPanopticAnnotations  # noqa: E402
from .engine.hooks import (  # noqa: E402
    AtomicCheckpointHook,
    EpochSeedHook,
    TemperatureAnnealingHook,
    WholeCheckpointHook,
)
from .evaluation import PanopticQualityMetric  # noqa: E402
from .layers import (  # noqa: E402
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DDFConv2d,
    DyConv2d,
    Involution2d,
    KWConv2d,
    LocalRelation2d,
    ODConv2d,
    PairwiseSelfAttention2d,
    StandAloneSelfAttention2d,
    WEConv2d,
    WeightNetConv2d,
    build_warehouses,
)
from .model_zoo import get_model, list_models  # noqa: E402
from .models import (  # noqa: E402
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
    KWMobileNetV2,
    KWResNet,
    LRNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
    SAResNet,
    SELayer,
    Warehoused,
    WeightNetResNet,
    WEResNet,
)
from .version import __version__  # noqa: E402

wrap_mmengine_loaders()
install_fuse_conv_bn()

__all__ = [
    'AtomicCheckpointHook', 'CBAM', 'CGCResNet', 'CGConv2d', 'CondConv2d', 'CondConvMobileNetV2', 'CondConvResNet',
    'DCDC2d', 'DCDCResNet', 'DCDConv2d', 'DCDMobileNetV2', 'DCDResNet', 'DDFConv2d', 'DDFResNet', 'DwCondConvResNet',
    'DwWeightNetResNet', 'DyConv2d', 'DyConvMobileNetV2', 'DyConvResNet', 'Dynamicized', 'ECALayer', 'EpochSeedHook',
    'Involution2d', 'KWConv2d', 'KWMobileNetV2', 'KWResNet', 'LRNet', 'LoadCocoPanopticAnnotations', 'LocalRelation2d',
    'ODConv2d', 'ODConvMobileNetV2', 'ODConvResNet', 'PairwiseSelfAttention2d', 'PanopticQualityMetric', 'RedNet',
    'SAN', 'SAResNet', 'SELayer', 'StandAloneSelfAttention2d', 'TemperatureAnnealingHook', 'WEConv2d', 'WEResNet',
    'Warehoused', 'WeightNetConv2d', 'WeightNetResNet', 'WholeCheckpointHook', '__version__', 'build_warehouses',
    'dynamicize', 'get_model', 'list_models', 'registry'
]


def __getattr__(name: str) -> type:
    """A head or neck, see :func:`~dynconv_mm.compat.optional.import_when_needed`."""
    if name in models.heads.__all__ or name in models.necks.__all__:
        return getattr(models, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

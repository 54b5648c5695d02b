"""Dynamic convolution for OpenMMLab: importing it registers its layers, models, hooks, transform and metric."""
from .compat.versions import check_versions

check_versions()

from . import registry  # noqa: E402
from .compat.checkpoint import allow_mmengine_checkpoints  # noqa: E402
from .compat.fuse_conv_bn import install_fuse_conv_bn  # noqa: E402
from .compat.hints import install_hints  # noqa: E402
from .conversion import Dynamicized, dynamicize  # noqa: E402
from .datasets import LoadCocoPanopticAnnotations  # noqa: E402
from .engine.hooks import EpochSeedHook, TemperatureAnnealingHook, WholeCheckpointHook  # noqa: E402
from .evaluation import PanopticQualityMetric  # noqa: E402
from .layers import (  # noqa: E402
    CBAM,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DyConv2d,
    ECALayer,
    Involution2d,
    ODConv2d,
    SELayer,
)
from .model_zoo import get_model, list_models  # noqa: E402
from .models import (  # noqa: E402
    CondConvLinearClsHead,
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDLinearClsHead,
    DCDMobileNetV2,
    DCDResNet,
    DropoutLinearClsHead,
    DyConvMobileNetV2,
    DyConvResNet,
    DynamicFPN,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
)
from .version import __version__  # noqa: E402

allow_mmengine_checkpoints()
install_fuse_conv_bn()
install_hints()

__all__ = [
    'CBAM', 'CondConv2d', 'CondConvLinearClsHead', 'CondConvMobileNetV2', 'CondConvResNet', 'DCDC2d', 'DCDCResNet',
    'DCDConv2d', 'DCDLinearClsHead', 'DCDMobileNetV2', 'DCDResNet', 'DropoutLinearClsHead', 'DyConv2d',
    'DyConvMobileNetV2', 'DyConvResNet', 'DynamicFPN', 'Dynamicized', 'ECALayer', 'EpochSeedHook', 'Involution2d',
    'LoadCocoPanopticAnnotations', 'ODConv2d', 'ODConvMobileNetV2', 'ODConvResNet', 'PanopticQualityMetric', 'RedNet',
    'SELayer', 'TemperatureAnnealingHook', 'WholeCheckpointHook', '__version__', 'dynamicize', 'get_model',
    'list_models', 'registry'
]

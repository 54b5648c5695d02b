"""Dynamic convolution for OpenMMLab: importing it registers its layers, models, hooks."""
from .compat.versions import check_versions

check_versions()

from . import registry  # noqa: E402
from .compat.checkpoint import allow_mmengine_checkpoints  # noqa: E402
from .compat.hints import install_hints  # noqa: E402
from .engine.hooks import EpochSeedHook, TemperatureAnnealingHook  # noqa: E402
from .layers import CBAM, CondConv2d, DCDConv2d, DyConv2d, ECALayer, ODConv2d, SELayer  # noqa: E402
from .models import (  # noqa: E402
    CondConvLinearClsHead,
    CondConvMobileNetV2,
    CondConvResNet,
    DCDLinearClsHead,
    DCDMobileNetV2,
    DCDResNet,
    DropoutLinearClsHead,
    DyConvMobileNetV2,
    DyConvResNet,
    ODConvMobileNetV2,
    ODConvResNet,
)
from .version import __version__  # noqa: E402

allow_mmengine_checkpoints()
install_hints()

__all__ = [
    'CBAM', 'CondConv2d', 'CondConvLinearClsHead', 'CondConvMobileNetV2', 'CondConvResNet', 'DCDConv2d',
    'DCDLinearClsHead', 'DCDMobileNetV2', 'DCDResNet', 'DropoutLinearClsHead', 'DyConv2d', 'DyConvMobileNetV2',
    'DyConvResNet', 'ECALayer', 'EpochSeedHook', 'ODConv2d', 'ODConvMobileNetV2', 'ODConvResNet', 'SELayer',
    'TemperatureAnnealingHook', '__version__', 'registry'
]

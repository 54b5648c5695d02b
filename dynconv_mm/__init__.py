"""Dynamic convolution for OpenMMLab: importing it registers the layers, backbones, heads, necks and hooks."""
from .compat.versions import check_versions

check_versions()

from . import registry  # noqa: E402
from .compat.checkpoint import allow_mmengine_checkpoints  # noqa: E402
from .compat.hints import install_hints  # noqa: E402
from .engine.hooks import EpochSeedHook, TemperatureAnnealingHook  # noqa: E402
from .layers import DCDC2d, Involution2d, ODConv2d  # noqa: E402
from .models import (  # noqa: E402
    DCDCResNet,
    DropoutLinearClsHead,
    DynamicFPN,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
)
from .version import __version__  # noqa: E402

allow_mmengine_checkpoints()
install_hints()

__all__ = [
    'DCDC2d', 'DCDCResNet', 'DropoutLinearClsHead', 'DynamicFPN', 'EpochSeedHook', 'Involution2d', 'ODConv2d',
    'ODConvMobileNetV2', 'ODConvResNet', 'RedNet', 'TemperatureAnnealingHook', '__version__', 'registry'
]

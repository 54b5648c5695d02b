"""Dynamic convolution for OpenMMLab: importing it registers its layers, models, hooks, transform and metric."""
from .compat.versions import check_versions

check_versions()

from . import registry  # noqa: E402
from .compat.checkpoint import allow_mmengine_checkpoints  # noqa: E402
from .compat.hints import install_hints  # noqa: E402
from .datasets import LoadCocoPanopticAnnotations  # noqa: E402
from .engine.hooks import EpochSeedHook, TemperatureAnnealingHook  # noqa: E402
from .evaluation import PanopticQualityMetric  # noqa: E402
from .layers import ODConv2d  # noqa: E402
from .models import DropoutLinearClsHead, ODConvMobileNetV2, ODConvResNet  # noqa: E402
from .version import __version__  # noqa: E402

allow_mmengine_checkpoints()
install_hints()

__all__ = [
    'DropoutLinearClsHead', 'EpochSeedHook', 'LoadCocoPanopticAnnotations', 'ODConv2d', 'ODConvMobileNetV2',
    'ODConvResNet', 'PanopticQualityMetric', 'TemperatureAnnealingHook', '__version__', 'registry'
]

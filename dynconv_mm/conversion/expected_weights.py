"""The names and shapes of a model's weights, without building it in memory."""
from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..compat.optional import import_optional
from ..layers import KWLinear
from ..models import heads
from ..models.backbones.mobilenet_v2 import MobileNetV2, make_divisible
from .architecture import KW_CLASSIFIER, KW_CONVNEXT, Architecture
from .dynamicize import dynamicize

MOBILENET_MAPS = (1, 2, 4, 7)  # stages that feed FPN; the last one is the last 1×1 convolution


class NoInitialisation(TorchFunctionMode):
    """On the meta device there is nothing to initialise, which is what building a model takes most of its time for."""

    SKIPPED = frozenset({Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_})

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.linspace:  # of whose values mmpretrain's backbones make their rates of stochastic depth
            kwargs = {'device': 'cpu', **kwargs}
        return args[0] if func in self.SKIPPED else func(*args, **kwargs)


def expected_weights(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors on the meta device by the names of mmpretrain's ``ImageClassifier`` or mmdet's detector; without
    ``num_classes`` those of the backbone alone.

    Raises:
        ImportError: a detector needs mmdet, DCD's classifier and ConvNeXt mmpretrain.
    """
    if architecture.detector is not None:
        return _detector(architecture)
    if architecture.arch is not None:
        return _convnext(architecture)
    with torch.device('meta'), NoInitialisation():
        backbone = architecture.backbone_class(**architecture.backbone_arguments)
        expected = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
        if architecture.num_classes is not None:
            head = _classifier(architecture, backbone.feat_dim)
            expected.update((f'head.{name}', value) for name, value in head.items())
    return expected


def _classifier(architecture: Architecture, features: int) -> dict[str, Tensor]:
    num_classes = architecture.num_classes
    if architecture.method == 'dcd':
        return heads.DCDLinearClsHead(num_classes=num_classes, in_channels=features).state_dict()
    linear = KWLinear(features, num_classes, **KW_CLASSIFIER) if 'static_pointwise' in architecture.extra else \
        torch.nn.Linear(features, num_classes)
    return {f'fc.{name}': value for name, value in linear.state_dict().items()}


def _convnext(architecture: Architecture) -> dict[str, Tensor]:
    registry = import_optional('mmpretrain.registry', 'ConvNeXt').MODELS
    import_optional('mmpretrain.models', 'ConvNeXt')
    base = f'mmpretrain::convnext/convnext-{architecture.arch}_32xb128_in1k.py'
    config = Config.fromstring(f'_base_ = {base!r}', '.py').model
    config.backbone.linear_pw_conv = False
    config.train_cfg = None  # of augmentations, which are announced
    if architecture.num_classes is not None:
        config.head.num_classes = architecture.num_classes
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'), NoInitialisation():
        model = registry.build(config)
        dynamicize(model.backbone, **KW_CONVNEXT)
    return {name: value for name, value in model.state_dict().items()
            if architecture.num_classes is not None or name.startswith('backbone.')}


def _detector(architecture: Architecture) -> dict[str, Tensor]:
    registry = import_optional('mmdet.registry', 'A detector').MODELS
    import_optional('mmdet.models', 'A detector')
    folder = architecture.detector.replace('-', '_')
    base = f'mmdet::{folder}/{architecture.detector}_r50_fpn_1x_coco.py'
    model = Config.fromstring(f'_base_ = {base!r}', '.py').model
    with torch.device('meta'), NoInitialisation():
        feat_dim = architecture.backbone_class(**architecture.backbone_arguments).feat_dim
    model.backbone = dict(type=architecture.backbone_class, **architecture.backbone_arguments)
    if architecture.depth is None:
        model.backbone.out_indices = MOBILENET_MAPS
        model.neck.in_channels = [make_divisible(MobileNetV2.arch_settings[index][1] * architecture.widen_factor)
                                  for index in MOBILENET_MAPS[:-1]] + [feat_dim]
    else:
        model.backbone.out_indices = (0, 1, 2, 3)
        model.neck.in_channels = [feat_dim // 8, feat_dim // 4, feat_dim // 2, feat_dim]
    for head in ('bbox_head', 'mask_head'):
        if head in model.roi_head:
            model.roi_head[head].num_classes = architecture.num_classes
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'), NoInitialisation():
        return registry.build(model).state_dict()

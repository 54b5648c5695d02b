"""What a model of a config costs: parameters and multiply-adds, by what they are spent on and by layer.

On the meta device, where a detector for 1280 × 800 takes neither memory nor time. What is counted by its equation, and
what counts nothing, need not be executed, and some of it cannot be there: a shape stands for its output.
"""
from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.condconv import CondConvLinear, CondConvRouting
from ..layers.conv_arguments import ConvArguments
from ..layers.involution import SizeKeepingConv
from ..layers.kernel_warehouse import KernelWarehouse, WarehouseLayer
from ..layers.weightnet import WeightNetReduction
from .multiply_adds import KINDS, count_by_layer, counted_layers

# The networks halve the image five times: below it, there is nothing left to convolve.
MIN_SIZE = 32


@dataclass(frozen=True)
class LayerComplexity:
    """Of one layer, or of one of several layers that count as a whole, such as a dynamic convolution."""

    name: str
    type: str
    params: int
    madds: dict[str, int]  # by kind, see dynconv_mm.analysis.multiply_adds.KINDS; 0 if the layer was not run


@dataclass(frozen=True)
class Complexity:
    """Of a model, for one image."""

    size: tuple[int, int]  # height and width that were counted, padded as the model's preprocessor pads
    proposals: int | None  # RoIs that box heads were counted with, None without such heads
    detections: int | None  # and mask heads
    params: int
    trainable: int
    backbone: int | None  # parameters of it, None if the model has none
    dynamic: int  # parameters of attentions, predicted kernels and further kernels
    layers: tuple[LayerComplexity, ...]

    @property
    def madds(self) -> dict[str, int]:
        """Multiply-adds by kind, see :data:`dynconv_mm.analysis.multiply_adds.KINDS`."""
        return {kind: sum(layer.madds[kind] for layer in self.layers) for kind in KINDS}

    @property
    def total_madds(self) -> int:
        """All multiply-adds."""
        return sum(self.madds.values())

    @property
    def not_run(self) -> list[str]:
        """Layers that inference does not run, such as auxiliary heads; they have parameters but count no products."""
        return [layer.name for layer in self.layers
                if not any(layer.madds.values()) and layer.type not in ('Embedding', KernelWarehouse.__name__)]


def build_on_meta(cfg: Config) -> nn.Module:
    """The model of a config, without memory for its weights.

    Args:
        cfg (Config): with ``model``, and ``default_scope`` unless the model's registry names say their scopes.

    Raises:
        ValueError: the config describes no model.
    """
    from mmengine.registry import MODELS, init_default_scope

    from .. import conversion, models  # noqa: F401  register what configs name
    from ..conversion.expected_weights import NoInitialisation
    if not isinstance(cfg.get('model'), dict):
        raise ValueError("the config describes no model: it needs a dict 'model'")
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with torch.device('meta'), NoInitialisation():
        return MODELS.build(cfg.model)


def default_size(model: nn.Module) -> tuple[int, int]:
    """The height and width that papers count a model with: 224 × 224, and 800 × 1280 if it is a detector."""
    return (800, 1280) if hasattr(model, 'bbox_head') or hasattr(model, 'roi_head') else (224, 224)


def measure_complexity(model: nn.Module, size: tuple[int, int] | None = None) -> Complexity:
    """Parameters and multiply-adds of a model.

    Multiply-adds are counted by layer and equation, see :func:`~dynconv_mm.analysis.count_madds`. A two-stage detector
    is counted as mmdet's ``get_flops`` counts it: box heads with as many proposals as its ``test_cfg`` lets the RPN
    keep, mask heads with as many as it lets the detector put out, usually 1000 and 100.

    Args:
        model (nn.Module): classifier, detector or backbone, on any device; the meta device is the fast one.
        size (tuple[int, int], optional): height and width of the image, rounded up to the multiple that the model's
            preprocessor pads to. Default: :func:`default_size`.

    Raises:
        ValueError: the size is no size or too small, a layer is unknown, or the model takes no image alone.
    """
    size = _padded(model, default_size(model) if size is None else size)
    layers = counted_layers(model)
    test_cfg = getattr(model, 'test_cfg', None) if hasattr(model, 'roi_head') else None
    proposals = test_cfg['rpn']['max_per_img'] if test_cfg else None
    detections = test_cfg['rcnn']['max_per_img'] if test_cfg and model.roi_head.with_mask else None
    images = torch.zeros(1, 3, *size, device=next(model.parameters(), torch.empty(0)).device)

    def run() -> None:
        if proposals is None:
            model(images)
        else:
            _run_two_stage(model, images, proposals, detections)

    try:
        with _outputs_by_shape(model):
            counts = count_by_layer(model, run)
    except (TypeError, RuntimeError, AttributeError, KeyError, NotImplementedError) as error:
        raise ValueError(f'{type(model).__name__} cannot be counted with an image of {size[0]} × {size[1]} alone: '
                         f'{type(error).__name__}: {error}') from error
    return Complexity(size, proposals, detections, _count_params(model), _count_params(model, trainable=True),
                      _count_params(model.backbone) if hasattr(model, 'backbone') else None, dynamic_params(model),
                      tuple(LayerComplexity(name, type(layer).__name__, _count_params(layer), _by_kind(counts[name]))
                            for name, layer, _ in layers))


def _padded(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < MIN_SIZE for side in size):
        raise ValueError(f'size must be height and width, ints of at least {MIN_SIZE}, but is {tuple(size)}')
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    return tuple(-(-side // divisor) * divisor for side in size)


def _by_kind(count: Counter[str]) -> dict[str, int]:
    return {kind: count[kind] for kind in KINDS}


def _count_params(module: nn.Module, trainable: bool = False) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trainable)


def dynamic_params(model: nn.Module) -> int:
    """The parameters that dynamic layers have beyond one static kernel and its bias: of attentions, of what predicts
    kernels, and of further kernels.

    For convolutions that mix or correct kernels that is what the model has more than its static counterpart. An
    involution or DCDC has no static kernel: all of it counts. A KernelWarehouse may have fewer, and the number is
    negative.
    """
    total = 0
    for _, layer, _ in counted_layers(model):
        static = _static_params(layer)
        if static is not None:
            total += _count_params(layer) - static
    return total


def _static_params(layer: nn.Module) -> int | None:
    """Parameters of the static layer in a dynamic one; None if it is not dynamic."""
    if isinstance(layer, (SizeKeepingConv, CondConvRouting, WeightNetReduction, KernelWarehouse)):
        return 0
    if isinstance(layer, WarehouseLayer):
        return math.prod(layer.kernel_sizes()) + (0 if layer.bias is None else layer.bias.numel())
    if isinstance(layer, ConvArguments):
        kernel_height, kernel_width = layer.kernel_size
        kernel = layer.out_channels * (layer.in_channels // layer.groups) * kernel_height * kernel_width
        return kernel + (0 if layer.bias is None else layer.bias.numel())
    if isinstance(layer, CondConvLinear):
        return layer.weight[0].numel() + layer.bias.numel()
    if 'DCDLinearClsHead' in _class_names(layer):  # a class for each version of mmpretrain's base
        return _count_params(layer.cls)
    return None


def _class_names(module: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(module).__mro__}


def _run_two_stage(model: nn.Module, images: Tensor, proposals: int, detections: int | None) -> None:
    """All heads of one of mmdet's two-stage detectors, without choosing proposals."""
    maps = model.extract_feat(images)
    if model.with_rpn:
        model.rpn_head(maps)
    head = model.roi_head
    rois, stages = images.new_zeros(proposals, 5), range(getattr(head, 'num_stages', 1))
    cascade = isinstance(head.bbox_head, nn.ModuleList)
    semantic = [head.semantic_head(maps)[1]] if getattr(head, 'with_semantic', False) else []
    for stage in stages:
        head._bbox_forward(*[stage] * cascade, maps, rois, *semantic)
    if detections is not None:
        rois = rois[:detections]
        if getattr(head, 'mask_info_flow', False):  # HTC: the last stage runs all of them
            head._mask_forward(-1, maps, rois, *semantic, training=False)
        else:
            for stage in stages:
                head._mask_forward(*[stage] * cascade, maps, rois, *semantic)
    if hasattr(model, 'semantic_head'):  # PanopticFPN
        model.semantic_head(maps)


@contextlib.contextmanager
def _outputs_by_shape(model: nn.Module) -> Iterator[None]:
    """Modules of :data:`STAND_INS` only say what shape they put out."""
    own = {}  # forwards that belong to the module itself and not to its class
    try:
        for module in model.modules():
            names = _class_names(module)
            stand_in = next((stand_in for name, stand_in in STAND_INS.items() if name in names), None)
            if stand_in is not None:
                own[module] = vars(module).get('forward')
                module.forward = stand_in.__get__(module)
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _keep(norm_or_activation: nn.Module, x: Tensor) -> Tensor:
    return x


def _convolve(layer: nn.Module, x: Tensor, *args, **kwargs) -> Tensor:
    kernel = torch.empty(layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size, device='meta')
    y = F.conv2d(x.to('meta'), kernel, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return x.new_empty(y.shape)


def _extract(extractor: nn.Module, maps: tuple[Tensor, ...], rois: Tensor, *args, **kwargs) -> Tensor:
    return maps[0].new_empty(len(rois), extractor.out_channels, *extractor.roi_layers[0].output_size)


def _align(layer: nn.Module, features: Tensor, rois: Tensor, *args) -> Tensor:
    return features.new_empty(len(rois), features.shape[1], *layer.output_size)


# by name of class: mmdet and mmcv's operators need not be installed
STAND_INS = {'_NormBase': _keep, 'ReLU': _keep, 'ReLU6': _keep, 'ConvArguments': _convolve, 'DeformConv2d': _convolve,
             'ModulatedDeformConv2d': _convolve, 'SingleRoIExtractor': _extract, 'RoIAlign': _align, 'RoIPool': _align}

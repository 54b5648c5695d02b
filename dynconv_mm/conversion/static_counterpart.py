"""The static network beside a dynamic one."""
from __future__ import annotations

import copy

from torch import nn

from ..compat.optional import import_optional
from ..layers import DCDConv2d, WEConv2d
from ..layers.condconv import CondConvLinear, CondConvRouting
from ..layers.dcd_base import DCDBase
from ..layers.involution import SizeKeepingConv
from ..layers.kernel_warehouse import KernelWarehouse, WarehouseLayer
from ..layers.kw import KWConv2d, KWLinear
from ..layers.mixture_conv import MixtureConv2d
from ..layers.sample_kernel import SampleKernelConv2d
from ..layers.weightnet import WeightNetReduction


def dynamic_layers(model: nn.Module) -> dict[str, nn.Module]:
    """By name, the layers of a model that can start as static ones, see :func:`static_layer`."""
    return {name: layer for name, layer in model.named_modules()
            if isinstance(layer, (MixtureConv2d, CondConvLinear, DCDBase, SampleKernelConv2d, WEConv2d))
            or isinstance(layer, WarehouseLayer) and layer.cell_num_ratio >= 1}


def layers_without_static(model: nn.Module) -> dict[str, nn.Module]:
    """By name, the layers of a model that no static convolution can be carried over to."""
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, SizeKeepingConv)
             or isinstance(layer, WarehouseLayer) and layer.cell_num_ratio < 1}
    return {name: layer for name, layer in found.items() if name.rpartition('.')[0] not in found}  # DCDC's own


def static_layer(layer: nn.Module) -> nn.Module:
    """The static layer, with fresh weights, whose place a dynamic one takes.

    Returns:
        Module: a ``Conv2d``; for a ``CondConvLinear`` or ``KWLinear`` a ``Linear``; for a ``DCDLinearClsHead``
        mmpretrain's ``LinearClsHead``.

    Raises:
        ValueError: there is none.
    """
    if isinstance(layer, (MixtureConv2d, DCDConv2d, SampleKernelConv2d, WEConv2d, KWConv2d)):
        return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
                         layer.dilation, layer.groups, layer.bias is not None, layer.padding_mode)
    if isinstance(layer, CondConvLinear):
        return nn.Linear(*reversed(layer.weight.shape[1:]))
    if isinstance(layer, KWLinear):
        return nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    if isinstance(layer, DCDBase):
        heads = import_optional('mmpretrain.models.heads', 'DCDLinearClsHead')
        return heads.LinearClsHead(layer.num_classes, layer.in_channels)
    raise ValueError(f'layer must be one that has a static counterpart, but is a {type(layer).__name__}')


def static_counterpart(model: nn.Module) -> nn.Module:
    """A copy of a model in which each dynamic layer is a static one with fresh weights.

    Its parameters have the names of the static network. Layers that have no static counterpart (``Involution2d``,
    ``DCDC2d``, ``DDFConv2d``, local attentions) are copied as they are.
    """
    # deepcopy takes a replacement for a copy that it has already made
    static = copy.deepcopy(model, {id(layer): static_layer(layer) for layer in dynamic_layers(model).values()})
    for block in static.modules():
        if isinstance(getattr(block, 'routing', None), (CondConvRouting, WeightNetReduction)):
            block.routing = None
    used = {layer.share.warehouse for layer in static.modules() if isinstance(layer, WarehouseLayer)}
    for owner in list(static.modules()):
        warehouses = getattr(owner, 'warehouse_manager', None)
        if isinstance(warehouses, KernelWarehouse) and warehouses not in used:
            del owner.warehouse_manager
    return static.train(model.training)


def fold_weight_excitation(model: nn.Module) -> nn.Module:
    """Let each :class:`~dynconv_mm.layers.WEConv2d` of a model convolve by its excited kernel alone, in place.

    The outputs stay the same. The state dict is that of the static network, which loads it.

    Args:
        model (Module): trained; it may be such a layer itself.

    Returns:
        Module: the same.

    Raises:
        ValueError: as of :meth:`WEConv2d.check_foldable`; nothing is changed then.

    Example:
        >>> model, static = (nn.Sequential(conv(3, 8, 3), nn.ReLU()) for conv in (WEConv2d, nn.Conv2d))
        >>> static.load_state_dict(fold_weight_excitation(model).state_dict())
        <All keys matched successfully>
    """
    layers = [layer for layer in model.modules() if isinstance(layer, WEConv2d)]
    for layer in layers:
        layer.check_foldable()
    for layer in layers:
        layer.fold()
    return model

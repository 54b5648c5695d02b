"""A dynamic layer that starts as the static one whose place it takes."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MMCVConv2d
from ..layers import DCDConv2d, FDConv2d, WEConv2d
from ..layers.condconv import CondConvLinear
from ..layers.dcd_base import DCDBase
from ..layers.involution import SizeKeepingConv
from ..layers.kernel_warehouse import WarehouseLayer
from ..layers.kw import KWConv2d, KWLinear
from ..layers.mixture_conv import MixtureConv2d
from ..layers.sample_kernel import SampleKernelConv2d
from ..layers.static_conv import StaticConv2d

GEOMETRY = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'dilation', 'groups', 'padding_mode')


@torch.no_grad()
def init_from_static(static: nn.Module, dynamic: nn.Module, noise: float = 0.) -> None:
    r"""Set a layer's parameters so that it computes what a static one does, in training and eval mode alike.

    The attentions become the same for every input, whatever the temperature, and stay able to learn:

    - ``ODConv2d``, ``DyConv2d``, ``CondConv2d``: the attentions' last FCs are 0. Each kernel is the static one, over
      what the attentions then add up to: sigmoid(0) = 1/2 each, 1/n by a softmax.
    - ``DCDConv2d``: W₀ is the static kernel, Λ = 1, and P = 0, so that there is no residual at first.
    - ``CGConv2d``, ``WeightNetConv2d``: the last FCs are 0, so that the gates are 1/2; the kernel is twice the static
      one, and of n learned ones each 2/n of it.
    - ``FDConv2d``: the last FCs and convolutions are 0; the coefficients are those of the static kernel.
    - ``WEConv2d``: W is what its excitation makes the static kernel of.
    - ``KWConv2d`` of at least as many cells as its kernel has parts: the parts stand in cells of the layer's own, and
      the attention picks these. Exactly so at the layer's temperature; at another one a part differs by 0.1% at most.

    A ``CondConv2d`` without a routing of its own takes it that the :class:`CondConvRouting` that serves it is
    neutral: call its ``neutralize_attention()`` too.

    Kernels that are all the same get the same gradients, and under neutral attentions stay the same for ever: of n
    such kernels a training makes no more than of one. ``noise`` lets them part without a change of the function.

    Args:
        static (Conv2d | Linear): the static layer; of DCD's classifier head, its FC.
        dynamic (Module): the layer to set: one of the above, or a static convolution, which gets a plain copy; for a
            ``Linear``, a ``CondConvLinear``, a ``KWLinear``, the ``DCDLinearClsHead`` or another ``Linear``.
        noise (float): standard deviation of Gaussian differences between the n kernels, relative to the root mean
            square of the static kernel; they add up to 0. Default: 0.

    Raises:
        ValueError: no parameters of ``dynamic`` can compute the same (``Involution2d``, ``DCDC2d``, ``DDFConv2d``,
            local attentions, a ``KWConv2d`` of fewer cells), the two differ in shape, stride, padding, dilation or
            groups, or an argument is not one of the above.

    Example:
        >>> static, dynamic = nn.Conv2d(8, 6, 3), ODConv2d(8, 6, 3, kernel_num=2)
        >>> init_from_static(static, dynamic, noise=0.01)
        >>> x = torch.randn(2, 8, 9, 9)
        >>> bool((static(x) - dynamic(x)).abs().max() < 1e-5)
        True
    """
    check_noise(noise)
    if isinstance(dynamic, SizeKeepingConv):
        raise ValueError(f'{type(dynamic).__name__} cannot start as a static convolution: it has no static kernel, and '
                         'the kernels that it predicts are the same for many channels or positions; train it from '
                         'scratch or from weights of its own kind')
    if isinstance(static, nn.Linear):
        _check_linear(static, dynamic)
    else:
        _check_conv(static, dynamic)
    weight = static.weight
    if isinstance(dynamic, (WEConv2d, FDConv2d, WarehouseLayer)):
        dynamic.set_kernel(weight)
        holder = dynamic
    elif isinstance(dynamic, (MixtureConv2d, CondConvLinear, SampleKernelConv2d)):
        kernels = _parted(weight, dynamic.weight.numel() // weight.numel(), noise) / dynamic.neutralize_attention()
        dynamic.weight.copy_(kernels.view_as(dynamic.weight))
        holder = dynamic
    elif isinstance(dynamic, DCDBase):
        dynamic.neutralize_attention()
        dynamic.static_matrix().weight.copy_(weight)
        holder = dynamic if isinstance(dynamic, DCDConv2d) else dynamic.static_matrix()
    else:
        dynamic.weight.copy_(weight)
        holder = dynamic
    if holder.bias is not None:
        holder.bias.copy_(torch.zeros_like(holder.bias) if static.bias is None else static.bias)


def check_noise(noise: float) -> None:
    """Raise a ValueError unless it is a number of at least 0."""
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < math.inf:
        raise ValueError(f'noise must be a number of at least 0, but is {noise!r}')


def _parted(weight: Tensor, kernel_num: int, noise: float) -> Tensor:
    """n kernels whose mean is ``weight``."""
    kernels = weight.expand(kernel_num, *weight.shape)
    if kernel_num == 1 or noise == 0:
        return kernels
    differences = torch.randn_like(kernels)
    differences -= differences.mean(0)
    scale = noise * weight.pow(2).mean().sqrt() * math.sqrt(kernel_num / (kernel_num - 1))  # the mean takes a share
    return kernels + scale * differences


def _check_conv(static: nn.Module, dynamic: nn.Module) -> None:
    """Refuse what is not a plain convolution, or not of the same geometry."""
    if not _is_plain_conv(static):
        raise ValueError(f'static must be a plain Conv2d, whose output is that of its kernel and bias alone, but is a '
                         f'{type(static).__name__}')
    if not (isinstance(dynamic, (MixtureConv2d, DCDConv2d, SampleKernelConv2d, WEConv2d, KWConv2d)) \
            or _is_plain_conv(dynamic)):
        raise ValueError(f'dynamic must be a convolution of this package or a Conv2d, but is a '
                         f'{type(dynamic).__name__}')
    for name in GEOMETRY:
        ours, theirs = getattr(dynamic, name), getattr(static, name)
        if ours != theirs:
            raise ValueError(f'{name} must be the same, but is {theirs!r} in the static layer and {ours!r} in the '
                             'dynamic one')
    if _padding(static) != _padding(dynamic):
        raise ValueError(f'padding must be the same, but is {static.padding!r} in the static layer and '
                         f'{dynamic.padding!r} in the dynamic one')
    _check_bias(static, dynamic)


def _is_plain_conv(layer: nn.Module) -> bool:
    if type(layer) is StaticConv2d or isinstance(layer, MMCVConv2d):
        return True
    kind = type(layer)
    return isinstance(layer, nn.Conv2d) and kind.forward is nn.Conv2d.forward \
        and kind._conv_forward is nn.Conv2d._conv_forward


def _padding(conv: nn.Module) -> tuple[int, int] | str:
    """In pixels, unless it differs between the sides."""
    if conv.padding == 'valid':
        return 0, 0
    if conv.padding == 'same':
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
        return 'same' if any(pixels % 2 for pixels in total) else tuple(pixels // 2 for pixels in total)
    return conv.padding


def _check_linear(static: nn.Linear, dynamic: nn.Module) -> None:
    if isinstance(dynamic, DCDBase) and not isinstance(dynamic, DCDConv2d):
        target = dynamic.static_matrix()
    elif isinstance(dynamic, (CondConvLinear, KWLinear, nn.Linear)):
        target = dynamic
    else:
        raise ValueError('dynamic must be a CondConvLinear, a KWLinear, a DCDLinearClsHead or a Linear where static '
                         f'is a Linear, but is a {type(dynamic).__name__}')
    shape = dynamic.kernel_sizes()[:2] if isinstance(dynamic, KWLinear) else tuple(target.weight.shape[-2:])
    if tuple(static.weight.shape) != shape:
        raise ValueError('out_features and in_features must be the same, but are '
                         f'{tuple(static.weight.shape)} in the static layer and {shape} in the dynamic one')
    _check_bias(static, target)


def _check_bias(static: nn.Module, dynamic: nn.Module) -> None:
    if static.bias is not None and dynamic.bias is None:
        raise ValueError('bias must be True in the dynamic layer, for the static one has a bias')

"""The equal ways to execute a mixture of kernels, and the choice among them.

A plan says which mixtures it serves, and executes them. To add one, write it, enter it in :data:`PLANS`, and let
``tools/benchmark.py --calibrate`` measure what it costs; all plans must agree in outputs and gradients.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .columns import columns_conv2d, windows_of
from .fused import LARGE_KERNEL, fuses_kernels
from .mixture import Mixture, is_shared, mixed_kernels, scaled_kernels
from .plan_costs import Shape, estimate
from .recomputed import convolve, convolve_recomputed
from .sample_conv import grouped_conv, is_channels_last
from .shared_columns import shared_columns_conv2d
from .tracing import is_exported, is_traced
from .triton import triton_enabled

# Kernels made for a batch are kept for the backward pass up to so many elements, and made again beyond; and no more
# are made at once than glibc allocates without mapping memory anew (32 MiB of float32).
KEPT_ELEMENTS = 2**18
KERNEL_ELEMENTS = 2**22
# Pixels of a map from which on the products of single samples are wide enough.
WIDE_PIXELS = 400


class Plan(NamedTuple):
    """A way to execute a mixture."""

    execute: Callable[[Mixture], Tensor]
    obstacle: Callable[[Mixture], str | None]  # why it cannot serve a mixture, or None


def grouped(m: Mixture) -> Tensor:
    """One kernel for each sample and a convolution with ``batch * groups`` groups, as everybody does it.

    What all kernels share leaves the sum: α_c scales the input's channels, α_f the output's, and α_s the
    mixed kernel. What each kernel has of its own is multiplied into the kernels before they are added up.
    """
    kernels = mixed_kernels(m)
    if is_shared(m.spatial_attention):
        kernels = kernels * m.spatial_attention.reshape(kernels.shape[0], 1, 1, *m.kernel_size)
    y = grouped_conv(_scaled_input(m), kernels, None, m.stride, m.padding, m.dilation, m.groups)
    return _scaled_output(m, y)


def shared(m: Mixture) -> Tensor:
    """One kernel for all samples, between a scaling of the input and one of the output."""
    if m.is_pointwise and not is_channels_last(m.input) and not is_exported():
        return columns(m)
    return _scaled_output(m, F.conv2d(_scaled_input(m), m.weight[0], None, m.stride, m.padding, m.dilation, m.groups))


def fold(m: Mixture) -> Tensor:
    """A kernel for each sample into which the attentions are folded, so that the features need no pass of their own.

    Where the features are smaller than the kernels, α_c scales the input and α_f the output instead.
    """
    folded, batch, kernel = m, m.input.shape[0], math.prod(m.weight.shape[1:])
    if not _makes_kernels_at_once(m):
        if is_shared(m.channel_attention) and m.input.numel() < batch * kernel:
            folded = folded._replace(input=_scaled_input(m), channel_attention=None)
        if is_shared(m.filter_attention) and m.weight.shape[1] * math.prod(m.output_size) < kernel:
            folded = folded._replace(filter_attention=None, bias=None)
    if batch * kernel <= KEPT_ELEMENTS or is_traced():
        y = convolve(folded)
    else:
        y = convolve_recomputed(folded, max(1, KERNEL_ELEMENTS // kernel))
    return y if folded.filter_attention is m.filter_attention else _scaled_output(m, y)


def _makes_kernels_at_once(m: Mixture) -> bool:
    """Whether one pass makes the kernels with all of their attentions, so that leaving some out saves nothing."""
    passes = m.kernel_attention is not None or m.spatial_attention is not None
    batch, kernel = m.input.shape[0], math.prod(m.weight.shape[1:])
    return m.shares_attention and (passes or batch * kernel <= LARGE_KERNEL) and fuses_kernels(batch, m.weight)


def per_sample(m: Mixture) -> Tensor:
    """One sample after the other: what needs the least memory."""
    return convolve_recomputed(m, 1)


def columns(m: Mixture) -> Tensor:
    """Matrix products over the columns of the scaled input, the kernels mixed a block at a time."""
    height, width = m.output_size
    if m.kernel_attention is None and not (m.is_pointwise and height * width >= WIDE_PIXELS):
        return shared_columns_conv2d(m.input, m.weight[0], m.spatial_attention, m.channel_attention,
                                     m.filter_attention, m.bias, m.stride, m.padding, m.dilation)
    y = columns_conv2d(_scaled_input(m), m.weight, m.kernel_attention, m.spatial_attention, m.stride, m.padding,
                       m.dilation)
    return _scaled_output(m, y)


def mix_after(m: Mixture) -> Tensor:
    """The convolutions by all n kernels, then their sum: for maps with fewer pixels than there are kernels."""
    n, out_channels = m.weight.shape[:2]
    # the kernels of a group side by side
    bank = m.weight.unflatten(1, (m.groups, -1)).transpose(0, 1).flatten(0, 2)
    y = F.conv2d(_scaled_input(m), bank, None, m.stride, m.padding, m.dilation, m.groups)
    y = y.view(len(y), m.groups, n, out_channels // m.groups, *y.shape[2:])
    if m.kernel_attention is not None:
        y = y * m.kernel_attention.reshape(len(y), 1, n, 1, 1, 1)
    return _scaled_output(m, y.sum(2).flatten(1, 2))


def shifted(m: Mixture) -> Tensor:
    """A depthwise convolution as a sum of products: the input, shifted to each place of the kernel, times its value."""
    batch, channels = m.input.shape[:2]
    windows = windows_of(m.input, m.kernel_size, m.stride, m.padding, m.dilation)
    values = scaled_kernels(m).reshape(batch, channels, -1, *m.kernel_size, 1, 1)
    y = None
    for i in range(m.kernel_size[0]):
        for j in range(m.kernel_size[1]):
            window, value = windows[:, :, None, i, j], values[:, :, :, i, j]
            if y is None:
                y = window * value
            elif torch.is_grad_enabled():
                y = torch.addcmul(y, window, value)
            else:
                y.addcmul_(window, value)
    y = y.flatten(1, 2)
    return y if m.bias is None else y + m.bias[:, None, None]


def triton(m: Mixture) -> Tensor:
    """An implicit matrix product that mixes the kernels on its way, on a GPU."""
    from .triton.mixture_conv import triton_mixture_conv2d
    return triton_mixture_conv2d(m)


def _scaled_input(m: Mixture) -> Tensor:
    return m.input * m.channel_attention[:, :, None, None] if is_shared(m.channel_attention) else m.input


def _scaled_output(m: Mixture, y: Tensor) -> Tensor:
    """The product times the α_f that all kernels share, plus the bias."""
    if is_shared(m.filter_attention):
        scale = m.filter_attention[:, :, None, None]
        if m.bias is not None:
            return torch.addcmul(m.bias[:, None, None], y, scale)
        return y * scale if torch.is_grad_enabled() else y.mul_(scale)
    return y if m.bias is None else y + m.bias[:, None, None]


def _always(m: Mixture) -> None:
    return None


def _needs_shared(m: Mixture) -> str | None:
    return None if m.shares_attention else 'attentions that each kernel has of its own'


def _needs_one_kernel(m: Mixture) -> str | None:
    if m.kernel_attention is not None:
        return 'kernels that are mixed'
    return _needs_no_spatial(m)


def _needs_no_spatial(m: Mixture) -> str | None:
    return _needs_shared(m) or (None if m.spatial_attention is None else 'a spatial attention')


def _needs_pointwise(m: Mixture) -> str | None:
    return _needs_shared(m) or (None if m.is_pointwise else 'kernels larger than 1×1, or groups')


def _needs_dense(m: Mixture) -> str | None:
    return _needs_shared(m) or (None if m.groups == 1 else 'groups')


def _needs_depthwise(m: Mixture) -> str | None:
    return None if m.is_depthwise else 'a convolution that is not depthwise'


def _needs_triton(m: Mixture) -> str | None:
    if not triton_enabled():
        return 'a call before enable_triton()'
    from .triton.mixture_conv import serves
    return None if serves(m) else 'tensors that are not on a GPU, or of another type than float16 to float64'


PLANS: dict[str, Plan] = {
    'grouped': Plan(grouped, _always),
    'shared': Plan(shared, _needs_one_kernel),
    'fold': Plan(fold, _always),
    'per_sample': Plan(per_sample, _always),
    'bmm': Plan(columns, _needs_pointwise),
    'im2col': Plan(columns, _needs_dense),
    'mix_after': Plan(mix_after, _needs_no_spatial),
    'shifted': Plan(shifted, _needs_depthwise),
    'triton': Plan(triton, _needs_triton),
}
FRUGAL_PLAN = 'per_sample'

_plan_for_all: list[str] = []
_cheapest: dict[tuple, str] = {}  # found once for each shape


@contextlib.contextmanager
def use_plan(plan: str) -> Iterator[None]:
    """Execute all mixtures by one plan, in all threads; those that it cannot serve, as their layers say.

    Example:
        >>> with use_plan('grouped'):
        ...     model(images)

    Raises:
        ValueError: ``plan`` is unknown.
    """
    check_plan(plan)
    _plan_for_all.append(plan)
    try:
        yield
    finally:
        _plan_for_all.remove(plan)


def plan_for_all(otherwise: str) -> str:
    """The plan of the innermost :func:`use_plan`, or ``otherwise``."""
    return _plan_for_all[-1] if _plan_for_all else otherwise


def check_plan(plan: str) -> None:
    """Raise a ValueError that names the plans there are unless ``plan`` is one of them or 'auto'."""
    if plan not in ('auto', *PLANS):
        raise ValueError(f"plan must be 'auto' or one of {sorted(PLANS)}, but is {plan!r}")


def choose_plan(m: Mixture, plan: str = 'auto') -> str:
    """The name of the plan that is to execute ``m``.

    Args:
        m (Mixture): the call.
        plan (str): a name in :data:`PLANS`, or 'auto' for the least estimated cost. In an export that does not
            depend on sizes, so there a name has no effect.

    Raises:
        ValueError: ``plan`` is unknown, or cannot serve the call.
    """
    check_plan(plan)
    asked = plan_for_all(plan)
    if asked == 'auto' or PLANS[asked].obstacle(m) is None:
        plan = asked
    if plan == 'auto' or is_exported():
        return _traced_plan(m) if is_traced() else _cheapest_plan(m) if m.input.device.type == 'cpu' else _gpu_plan(m)
    obstacle = PLANS[plan].obstacle(m)
    if obstacle is not None:
        able = sorted(name for name in PLANS if PLANS[name].obstacle(m) is None)
        raise ValueError(f'plan {plan!r} cannot serve {obstacle}; those that can: {able}')
    return plan


def _cheapest_plan(m: Mixture) -> str:
    batch, in_channels, *input_size = m.input.shape
    n, out_channels = m.weight.shape[:2]
    is_training = torch.is_grad_enabled() and (m.input.requires_grad or m.weight.requires_grad)
    shape = Shape(batch, n, in_channels, out_channels, m.groups, m.kernel_size, tuple(input_size), m.output_size,
                  is_training)
    key = shape, m.kernel_attention is None, m.spatial_attention is None, m.shares_attention
    plan = _cheapest.get(key)
    if plan is None:
        costs = {name: cost for name, cost in estimate(shape).items() if PLANS[name].obstacle(m) is None}
        plan = _cheapest[key] = min(costs, key=costs.__getitem__)
    return plan


def _gpu_plan(m: Mixture) -> str:
    """Triton where it is switched on, else one large operation; their costs have not been measured."""
    return _first(m, 'triton', 'shared', 'bmm')


def _traced_plan(m: Mixture) -> str:
    """A plan whose operations do not depend on the batch's size, where there is one; in an export 'grouped' is one
    too."""
    return _first(m, 'shared', 'bmm') if is_exported() else _first(m, 'shared', 'bmm', 'shifted', 'im2col')


def _first(m: Mixture, *names: str) -> str:
    """The first plan that can serve ``m``, or 'grouped'."""
    return next((name for name in names if PLANS[name].obstacle(m) is None), 'grouped')

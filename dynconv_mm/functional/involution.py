"""Convolution whose kernel differs from position to position and is shared by groups of channels.

Involution (CVPR 2021, Eq. 4) and the local spatial-adaptive branch of DCDC (Eq. 5) are this operator with kernels
predicted in different ways. No k² copies of the input are ever made: it is a sum of shifted products.
"""
from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from . import involution_cpu, portable
from .involution_cpu import accumulation_dtype, empty_output
from .numba import NUMBA_DTYPES, numba_enabled, numba_kernels
from .sample_conv import IntPair, output_size, pair
from .second_order import differentiable_gradients
from .tracing import is_exported
from .triton import triton_enabled


def involution2d(input: Tensor,
                 weight: Tensor,
                 *,
                 stride: int | IntPair = 1,
                 padding: int | IntPair = 0,
                 dilation: int | IntPair = 1) -> Tensor:
    r"""Convolve each position by its own kernel (Involution, Eq. 4).

    .. math:: y_{bchw} = \sum_{ij} W_{b g(c) ij hw} \, x_{b c,\, s h + d i - p,\, s w + d j - p}

    The channels are split into G groups of neighbours, g(c) = ⌊c·G/C⌋, each with its own kernels. Half precision is
    summed up in float32. CUDA tensors are computed by Triton where :func:`~dynconv_mm.functional.enable_triton` asks
    for it; CPU tensors by Numba where it is installed (:func:`~dynconv_mm.functional.enable_numba`) and both tensors
    lie in torch's own order.

    Args:
        input (Tensor[batch, channels, height, width]): features; the batch may be empty.
        weight (Tensor[batch, groups, kernel_height, kernel_width, out_height, out_width]): the kernels, of the
            input's dtype. Without Numba it is fastest on the CPU if the memory order is [batch, out_height, out_width,
            groups, kernel_height, kernel_width], which is what a convolution in ``channels_last`` puts out.
        stride, padding, dilation: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, channels, out_height, out_width], in the input's memory format

    Raises:
        ValueError: the tensors do not fit together; nothing is cropped.

    Example:
        >>> x, weight = torch.randn(2, 8, 9, 9), torch.randn(2, 4, 3, 3, 5, 5)
        >>> involution2d(x, weight, stride=2, padding=1).shape
        torch.Size([2, 8, 5, 5])
    """
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    _check(input, weight, stride, padding, dilation)
    if is_exported():
        return portable.involution(input, weight, stride, padding, dilation)
    return torch.ops.dynconv_mm.involution2d(input, weight, stride, padding, dilation)


def _check(input: Tensor, weight: Tensor, stride: IntPair, padding: IntPair, dilation: IntPair) -> None:
    if input.dim() != 4:
        raise ValueError(f'input must be [batch, channels, height, width], but its shape is {tuple(input.shape)}')
    if weight.dim() != 6:
        raise ValueError(f'weight must be [batch, groups, kernel_height, kernel_width, out_height, out_width], but '
                         f'its shape is {tuple(weight.shape)}')
    batch, channels, height, width = input.shape
    kernel_batch, groups, *kernel_size, out_height, out_width = weight.shape
    if kernel_batch != batch:
        raise ValueError(f'weight has kernels for a batch of {kernel_batch}, and input is a batch of {batch}')
    if groups == 0 or channels % groups:
        raise ValueError(f'input has {channels} channels, which the {groups} groups of weight do not divide')
    expected = output_size((height, width), kernel_size, stride, padding, dilation)
    if (out_height, out_width) != expected:
        raise ValueError(f'weight has kernels for {out_height}×{out_width} positions, and a {height}×{width} input '
                         f'with kernel size {tuple(kernel_size)}, stride {stride}, padding {padding} and dilation '
                         f'{dilation} has {expected[0]}×{expected[1]}')
    if input.dtype != weight.dtype:
        raise ValueError(f'weight must have the dtype of input, {input.dtype}, but has {weight.dtype}')


class _Involution2d(torch.autograd.Function):

    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor, *geometry: list[int]) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.dynconv_mm.involution2d(input, weight, *geometry)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        operators, tensors = torch.ops.dynconv_mm, ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*differentiable_gradients(lambda *tensors: _forward(*tensors, *ctx.geometry), tensors,
                                              ctx.needs_input_grad[:2], grad), *[None] * len(ctx.geometry))
        grad_input = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_input = operators.involution2d_grad_input(grad, *tensors, *ctx.geometry)
        if ctx.needs_input_grad[1]:
            grad_weight = operators.involution2d_grad_weight(grad, *tensors, *ctx.geometry)
        return grad_input, grad_weight, *[None] * len(ctx.geometry)


# On any device: one pass over the features for each of the k² shifts. Autograd knows all operations of `_forward`.


def _shifts(weight: Tensor, stride: list[int], dilation: list[int]):
    """For each element (i, j) of the kernel: i, j and the rows and columns of the padded input that it meets."""
    _, _, kernel_height, kernel_width, out_height, out_width = weight.shape
    for i in range(kernel_height):
        for j in range(kernel_width):
            top, left = i * dilation[0], j * dilation[1]
            yield i, j, (..., slice(top, top + (out_height - 1) * stride[0] + 1, stride[0]),
                         slice(left, left + (out_width - 1) * stride[1] + 1, stride[1]))


def _padded_groups(input: Tensor, groups: int, padding: list[int]) -> Tensor:
    """Padded features as [batch, groups, channels / groups, height, width]."""
    return F.pad(input, (padding[1], padding[1], padding[0], padding[0])).unflatten(1, (groups, -1))


def _forward(input: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    padded = _padded_groups(input, weight.shape[1], padding)
    output = torch.zeros(*padded.shape[:3], *weight.shape[4:], dtype=accumulation_dtype(input.dtype),
                         device=input.device)
    for i, j, window in _shifts(weight, stride, dilation):
        output.addcmul_(padded[window], weight[:, :, None, i, j])
    return empty_output(input, weight).copy_(output.flatten(1, 2))


def _grad_input(grad: Tensor, input: Tensor, weight: Tensor, stride: list[int], padding: list[int],
                dilation: list[int]) -> Tensor:
    grad = grad.unflatten(1, (weight.shape[1], -1))
    padded = torch.zeros_like(_padded_groups(input, weight.shape[1], padding),
                              dtype=accumulation_dtype(input.dtype))
    for i, j, window in _shifts(weight, stride, dilation):
        padded[window].addcmul_(grad, weight[:, :, None, i, j])
    top, left = padding
    height, width = input.shape[2:]
    return torch.empty_like(input).copy_(padded.flatten(1, 2)[..., top:top + height, left:left + width])


def _grad_weight(grad: Tensor, input: Tensor, weight: Tensor, stride: list[int], padding: list[int],
                 dilation: list[int]) -> Tensor:
    grad, padded = grad.unflatten(1, (weight.shape[1], -1)), _padded_groups(input, weight.shape[1], padding)
    grad_weight, dtype = torch.empty_like(weight), accumulation_dtype(input.dtype)
    for i, j, window in _shifts(weight, stride, dilation):
        grad_weight[:, :, i, j] = (padded[window].to(dtype) * grad).sum(2)
    return grad_weight


def wants_channels_last(hidden: Tensor) -> bool:
    """Whether kernels should be predicted in ``channels_last``, in which :func:`involution2d` reads them faster.

    Args:
        hidden (Tensor[batch, channels, height, width]): what they are predicted from.
    """
    return hidden.device.type == 'cpu' and not (numba_enabled() and hidden.dtype in NUMBA_DTYPES)


def _triton_kernels() -> ModuleType | None:
    if not triton_enabled():
        return None
    from .triton import involution
    return involution


def _numba_kernels() -> ModuleType | None:
    return numba_kernels('involution') if numba_enabled() else None


def _or_kernels(function: Callable[..., Tensor], name: str, kernels: Callable[[], ModuleType | None]
                ) -> Callable[..., Tensor]:
    """The function, and in its place the one of that name in a module of kernels where there is one that takes the
    tensors."""

    def run(*arguments: Tensor | list[int]) -> Tensor:
        module = kernels()
        if module is not None and module.serves(*arguments[:-3]):
            return getattr(module, name)(*arguments)
        return function(*arguments)

    return run


# Operators of their own, so that torch.compile takes each as one step instead of looking into its loops. The 'Meta'
# versions say what the result looks like, memory order included.

_LIBRARY = torch.library.Library('dynconv_mm', 'DEF')
_ARGUMENTS = 'Tensor input, Tensor weight, int[2] stride, int[2] padding, int[2] dilation'

for _operator, _schema, _name, _any, _meta in (
    ('involution2d', _ARGUMENTS, 'forward', _forward, empty_output),
    ('involution2d_grad_input', f'Tensor grad, {_ARGUMENTS}', 'grad_input', _grad_input,
     lambda grad, input, weight, *geometry: torch.empty_like(input)),
    ('involution2d_grad_weight', f'Tensor grad, {_ARGUMENTS}', 'grad_weight', _grad_weight,
     lambda grad, input, weight, *geometry: torch.empty_like(weight)),
):
    _LIBRARY.define(f'{_operator}({_schema}) -> Tensor')
    _on_cpu = _or_kernels(getattr(involution_cpu, _name), _name, _numba_kernels)
    _LIBRARY.impl(_operator, _or_kernels(_any, _name, _triton_kernels), 'CompositeExplicitAutograd')
    _LIBRARY.impl(_operator, _or_kernels(_on_cpu, _name, _triton_kernels), 'CPU')
    _LIBRARY.impl(_operator, _meta, 'Meta')
_LIBRARY.impl('involution2d', _Involution2d.apply, 'Autograd')

"""Operators as an exporter records them for one image: kernels that the graph makes, and ordinary convolutions by them.

What depends on parameters alone is written as such, and becomes a constant of the graph.
"""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..batch_norm import scale_and_shift
from ..geometry import IntPair, pad_zeros
from ..involution import INVOLUTION, Involution
from ..mixture_conv import MIXTURE_CONV, Mixture, sample_kernels
from ..operator import Target, export_target
from ..sample_conv import SAMPLE_CONV, SampleConv
from . import graph
from .shared import scaled_input


def mixture_conv(m: Mixture) -> Tensor:
    """Mixed kernels, or constant ones; an attention scales the kernels or the maps, whichever are smaller.

    A norm goes into the constants.
    """
    target = export_target()
    if target is None:
        return graph.mixture_conv(MIXTURE_CONV.without_norm(m))
    if m.norm is not None:
        scale, shift = scale_and_shift(m.norm, m.bias)
        m = m._replace(weight=m.weight * scale[:, None, None, None], bias=shift, norm=None)
    if not m.shares_attention:
        return _conv(m.input, sample_kernels(m), m.bias, *m[7:11])
    # sizes are those that it is traced with; a graph for any size is correct for all, and fast for such as these
    one_kernel = m.kernel_attention is None and m.spatial_attention is None
    kernel, maps = m.weight[0].numel(), (_pixels(m.input), m.weight.shape[1] * int(m.output_size[0] * m.output_size[1]))
    one_kernel = one_kernel and KEEP * kernel > sum(maps)
    if one_kernel or m.spatial_attention is None and kernel > maps[0]:
        m = m._replace(input=scaled_input(m), channel_attention=None)
    filter_ = m.filter_attention
    if filter_ is None or not (one_kernel or kernel > maps[1]):
        return _conv(m.input, _kernel(m, target), m.bias, *m[7:11])
    y = _conv(m.input, _kernel(m._replace(filter_attention=None), target), None, *m[7:11])
    return graph.scaled_output(m, y)


KEEP = 4
"""How much smaller than the maps one kernel has to be for scaling it to cost less than giving up that it is constant,
for which runtimes have better layouts (measured in ONNX Runtime)."""


def _pixels(x: Tensor) -> int:
    """Values of one image's map."""
    return int(x.shape[1] * x.shape[2] * x.shape[3])


def _kernel(m: Mixture, target: Target) -> Tensor:
    """The image's kernel, Tensor[1, out_channels, in_channels / groups, kernel_height, kernel_width]."""
    n, _, group_channels, height, width = m.weight.shape
    area = height * width
    kernel, spatial, channel, filter_ = m[3:7]
    shape = -1, m.groups, m.weight.shape[1] // m.groups, group_channels * area
    if kernel is None:
        kernels = m.weight.reshape(shape)
    elif target.runtime == 'openvino':  # which has no fast product of a row and a large matrix
        kernels = sum(kernel[:, i, None, None, None] * m.weight[i].reshape(shape) for i in range(n))
    else:
        kernels = (kernel @ m.weight.reshape(n, -1)).reshape(shape)
    # One row for all output channels: runtimes multiply element by element where the last axis that is not broadcast
    # has k² elements.
    row = None
    if spatial is not None:
        row = spatial.reshape(-1, 1, 1, area)
    if channel is not None:
        scale = channel.reshape(-1, m.groups, group_channels, 1)
        row = scale if row is None else scale * row
    if row is not None:
        row = row.expand(-1, row.shape[1], group_channels, area)
        kernels = kernels * row.reshape(-1, row.shape[1], 1, group_channels * area)
    if filter_ is not None:
        kernels = kernels * filter_.reshape(-1, *shape[1:3], 1)
    return kernels.reshape(-1, *m.weight.shape[1:])


def involution(call: Involution) -> Tensor:
    """For OpenVINO and one size, for which it runs products and their sum in one pass, a sum over the elements of the
    kernel; else as any graph."""
    target = export_target()
    if target is None or target.any_size or target.runtime != 'openvino':
        return graph.involution(call)
    input, weight, stride, padding, dilation = call
    batch, channels = input.shape[:2]
    groups, kernel_height, kernel_width, height, width = weight.shape[1:]
    shape = batch, groups, channels // groups, height, width
    columns = graph.views(pad_zeros(input, padding), 3, kernel_width, stride[1], dilation[1])
    y = sum(window.reshape(shape) * weight[:, :, None, i, j] for j, column in enumerate(columns)
            for i, window in enumerate(graph.views(column, 2, kernel_height, stride[0], dilation[0])))
    return y.reshape(batch, channels, height, width)


def sample_conv(call: SampleConv) -> Tensor:
    """:func:`~dynconv_mm.functional.sample_conv2d` by an ordinary convolution."""
    return graph.sample_conv(*call) if export_target() is None else _conv(*call)


def _conv(x: Tensor, kernels: Tensor, bias: Tensor | None, *geometry: IntPair | int) -> Tensor:
    """By the one image's kernel."""
    return F.conv2d(x, kernels.reshape(tuple(map(int, kernels.shape[1:]))), bias, *geometry)


MIXTURE_CONV.exported = mixture_conv
SAMPLE_CONV.exported = sample_conv
INVOLUTION.exported = involution

"""What a compiler records: for one image a kernel, made in one pass, and the fastest product by it.

Batches are recorded as in every graph; a compiler makes code for one image apart.
"""
from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import pad_zeros
from ..mixture_conv import MIXTURE_CONV, Mixture, sample_kernels
from ..operator import is_known
from ..sample_conv import SAMPLE_CONV, SampleConv, grouped_conv
from . import graph
from .shared import scaled_input


def mixture_conv(m: Mixture) -> Tensor:
    """A kernel that is the same for all images stays constant, so that the compiler can lay it out beforehand: α_c, α_s
    and α_f scale maps and columns instead, where these are known to be smaller. Other kernels take all attentions."""
    constant = m.kernel_attention is None and m.shares_attention
    if m.input.shape[0] != 1 or constant and m.spatial_attention is None:
        return graph.mixture_conv(m)
    kernel, pixels = m.weight.shape[1:], m.output_size[0] * m.output_size[1]
    by_columns = m.groups == 1 and (kernel[2:] == (1, 1) or is_known(kernel[1] * pixels < kernel[0] * kernel[1]))
    if constant and by_columns:
        return graph.scaled_output(m, _by_columns(m, scaled_input(m), m.weight[0], m.spatial_attention[0]))
    if m.kernel_attention is not None and m.shares_attention:  # a sum, which is fused with the scalings behind it
        mixed = functools.reduce(torch.add, [m.kernel_attention[0, i] * kernel for i, kernel in enumerate(m.weight)])
        m = m._replace(weight=mixed[None], kernel_attention=None)
    kernels = sample_kernels(m)
    if by_columns:
        y = _by_columns(m, m.input, kernels[0])
        return y if m.bias is None else y + m.bias[:, None, None]
    return grouped_conv(m.input, kernels, m.bias, *m[7:11])


def _by_columns(m: Mixture, x: Tensor, kernel: Tensor, scales: Tensor | None = None) -> Tensor:
    """The convolution of one image as a product with its columns, whose elements of the kernel ``scales`` scale."""
    kernel_height, kernel_width = kernel.shape[2:]
    rows = graph.views(pad_zeros(x, m.padding), 2, kernel_height, m.stride[0], m.dilation[0])
    windows = [view for row in rows for view in graph.views(row, 3, kernel_width, m.stride[1], m.dilation[1])]
    height, width = windows[0].shape[2:]
    columns = [window[0].flatten(1).t() for window in windows]  # [pixels, channels]
    if scales is not None:
        columns = [column * scale for column, scale in zip(columns, scales)]
    y = F.linear(columns[0] if len(columns) == 1 else torch.stack(columns, 2).flatten(1), kernel.flatten(1))
    return y.t().reshape(1, -1, height, width)


def sample_conv(call: SampleConv) -> Tensor:
    """One image by an ordinary convolution."""
    return (grouped_conv if call.input.shape[0] == 1 else graph.sample_conv)(*call)


MIXTURE_CONV.graph = mixture_conv
SAMPLE_CONV.graph = sample_conv

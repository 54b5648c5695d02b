"""Calls of mixture_conv2d of all kinds, drawn by Hypothesis, and the equation that they are to compute."""
from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F


def channels_last(tensor: Tensor) -> Tensor:
    """A map, or a stack of kernels, with its channels last in memory."""
    if tensor.dim() == 5:
        return channels_last(tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2])
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


#: the same tensor, or another of its shape, by how it lies in memory
LAYOUTS = {
    'contiguous': lambda t: t,
    'channels_last': channels_last,
    'transposed': lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    'strided': lambda t: torch.stack((t, t), -1)[..., 0],
    'sliced': lambda t: F.pad(t, (1, 2) * t.dim())[(slice(1, -2), ) * t.dim()],
    'behind others': lambda t: torch.cat((t.new_ones(3), t.flatten()))[3:].view_as(t),
    'expanded': lambda t: t[:1].expand_as(t),  # the first for all
}


def reference(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride, padding, dilation, groups,
              kernel_attention=None, spatial_attention=None, channel_attention=None, filter_attention=None) -> Tensor:
    """y_b = (Σ_i α_w · α_f · α_c · α_s · W_i) * x_b, an output channel at a time."""
    n, out_channels, group_channels, kernel_height, kernel_width = weight.shape

    def of_each_kernel(attention: Tensor | None, length: int) -> Tensor:
        if attention is None:
            return input.new_ones(len(input), n, length)
        return attention if attention.dim() == 3 else torch.stack([attention] * n, 1)

    spatial = of_each_kernel(spatial_attention, kernel_height * kernel_width)
    spatial = spatial.reshape(-1, n, kernel_height, kernel_width)
    channel = of_each_kernel(channel_attention, group_channels * groups)
    filter_ = of_each_kernel(filter_attention, out_channels)
    samples = []
    for b, x in enumerate(input):
        maps = []
        for o in range(out_channels):
            group = o // (out_channels // groups)
            met = slice(group * group_channels, (group + 1) * group_channels)  # the input channels that o sees
            kernel = torch.zeros_like(weight[0, 0])
            for i in range(n):
                alpha = 1 if kernel_attention is None else kernel_attention[b, i]
                kernel = kernel + (alpha * filter_[b, i, o] * channel[b, i, met].reshape(-1, 1, 1) * spatial[b, i]
                                   * weight[i, o])
            y = F.conv2d(x[met], kernel[None], None, stride, padding, dilation)
            maps.append(y if bias is None else y + bias[o])
        samples.append(torch.cat(maps))
    return torch.stack(samples)


class Case(NamedTuple):
    """A call: sizes, arguments, and which attentions there are."""

    batch: int
    n: int
    groups: int
    group_channels: int
    group_outputs: int
    kernel: tuple[int, int]
    size: tuple[int, int]
    arguments: dict[str, tuple[int, int]]
    attentions: dict[str, str]
    bias: bool
    layouts: dict[str, str]

    def make_tensors(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
        area, channels = self.kernel[0] * self.kernel[1], self.groups * self.group_channels
        out_channels = self.groups * self.group_outputs
        shapes = dict(input=(self.batch, channels, *self.size),
                      weight=(self.n, out_channels, self.group_channels, *self.kernel))
        if self.bias:
            shapes['bias'] = (out_channels,)
        for name, length in (('kernel', self.n), ('spatial', area), ('channel', channels), ('filter', out_channels)):
            kind = self.attentions[name]
            if kind != 'absent':
                shapes[f'{name}_attention'] = (self.batch, *([self.n] if kind == 'own' else []), length)
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randn(shape, generator=generator).to(dtype).requires_grad_()
                for name, shape in shapes.items()}

    def call(self, function, tensors: dict[str, Tensor], **kwargs) -> Tensor:
        return function(**self.lay_out(tensors), **self.arguments, groups=self.groups, **kwargs)

    def lay_out(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: LAYOUTS[self.layouts.get(name, 'contiguous')](tensor) for name, tensor in tensors.items()}


#: the names of what can be laid out
TENSORS = ('input', 'weight', 'bias', *(f'{name}_attention' for name in ('kernel', 'spatial', 'channel', 'filter')))


@st.composite
def cases(draw, batch=st.integers(1, 5)) -> Case:
    def pair(*values):
        return draw(st.tuples(*[st.sampled_from(values)] * 2))

    kernel, stride, dilation, padding = pair(1, 3, 5, 7), pair(1, 2, 3), pair(1, 2), pair(0, 1, 2, 3)
    groups, group_channels, group_outputs = draw(st.one_of(
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
        st.tuples(st.integers(2, 5), st.just(1), st.just(1))))  # depthwise
    least = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding)]
    size = tuple(smallest + draw(st.integers(0, 5) | st.just(20)) for smallest in least)
    attentions = {name: draw(st.sampled_from(['own', 'shared', 'absent'])) for name in ('spatial', 'channel', 'filter')}
    attentions['kernel'] = draw(st.sampled_from(['shared', 'absent']))  # [batch, n] already
    return Case(draw(batch), draw(st.integers(1, 8)), groups, group_channels, group_outputs, kernel, size,
                dict(stride=stride, padding=padding, dilation=dilation), attentions, draw(st.booleans()),
                {name: draw(st.sampled_from(list(LAYOUTS))) for name in TENSORS})


def assert_agree(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    error = (actual.double() - expected).abs().max()
    assert error <= tolerance * (1 + expected.abs().max()), f'{what}: {error}'

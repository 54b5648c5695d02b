"""Local attention, literally: a sum over a window, pixel by pixel."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def conv1x1(layer, x: Tensor) -> Tensor:
    """A 1×1 convolution of one sample, Tensor[channels, height, width]."""
    y = torch.einsum('oi,ihw->ohw', layer.weight[:, :, 0, 0], x)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def reflected(index: int, size: int) -> int:
    """The pixel that a mirror at either edge shows."""
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
        if size == 1:
            index = 0
    return index


def window(layer, height: int, width: int, row: int, column: int) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Elements of the kernel and the pixels that they meet, None beyond the edge of zeros."""
    for i in range(layer.kernel_size[0]):
        for j in range(layer.kernel_size[1]):
            h = row + (i - layer.kernel_size[0] // 2) * layer.dilation[0]
            w = column + (j - layer.kernel_size[1] // 2) * layer.dilation[1]
            if layer.padding_mode == 'reflect':
                yield i, j, reflected(h, height), reflected(w, width)
            else:
                inside = 0 <= h < height and 0 <= w < width
                yield i, j, h if inside else None, w if inside else None


def at(x: Tensor, h: int | None, w: int | None) -> Tensor:
    """The features of a pixel; zeros beyond the edge."""
    return x.new_zeros(len(x)) if h is None else x[:, h, w]


def attend(layer, values: Tensor, logits: Callable, group_channels: int, stride: tuple[int, int]) -> Tensor:
    """Values added up by the softmax of logits over each window.

    Args:
        values (Tensor[batch, channels, height, width]): what is added up.
        logits (Callable): of sample, row, column, and an element of the window and its pixel, Tensor[groups].
        group_channels (int): channels that share weights.
        stride (tuple[int, int]): of the positions.
    """
    height, width = values.shape[2:]
    samples = []
    for b in range(len(values)):
        rows = []
        for row in range(0, height, stride[0]):
            pixels = []
            for column in range(0, width, stride[1]):
                places = list(window(layer, height, width, row, column))
                scores = torch.stack([logits(b, row, column, *place) for place in places])
                weights = scores.exp() / scores.exp().sum(0)
                pixels.append(sum(weight.repeat_interleave(group_channels) * at(values[b], h, w)
                                  for weight, (_, _, h, w) in zip(weights, places)))
            rows.append(torch.stack(pixels, 1))
        samples.append(torch.stack(rows, 1))
    return torch.stack(samples)

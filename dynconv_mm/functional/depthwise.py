"""Depthwise convolution without gradients on a CPU, where a kernel of ours is faster than torch's."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .autocast import autocast_dtype
from .numba import ZEROS
from .numba.serving import addresses, kernels_for
from .numba.threads import in_threads

# Torch convolves small maps side by side, which takes it some 0.2 ms to prepare.
SMALL_MAP, MANY_NUMBERS = 128, 2**16


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
           dilation: tuple[int, int], groups: int) -> Tensor:
    """:func:`torch.nn.functional.conv2d`, by :func:`depthwise_conv2d` where that serves."""
    if x.dim() == 4 and 1 < groups == x.shape[1] == weight.shape[0]:
        y = depthwise_conv2d(x, weight, bias, stride, padding, dilation)
        if y is not None:
            return y
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int],
                     padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor | None:
    """Convolve each channel by its kernel.

    Args:
        x (Tensor[batch, channels, height, width]): features.
        weight (Tensor[channels or batch * channels, 1, kernel_height, kernel_width]): the kernels, for all samples or
            each by itself.
        bias (Tensor[channels], optional): added, the same for all samples.
        stride, padding, dilation: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, channels, height, width], or None where the kernel does not serve, or torch's is best: for
        outputs of another size, and for many small maps.
    """
    kernel_size = weight.shape[2:]
    keeping = tuple(d * (k - 1) for d, k in zip(dilation, kernel_size))
    if stride != (1, 1) or keeping != tuple(2 * p for p in padding):
        return None
    module = kernels_for(x, 'depthwise')
    if module is None or autocast_dtype(x) is not None:
        return None
    batch, channels, height, width = x.shape
    if not x.numel() or height * width < SMALL_MAP and x.numel() > MANY_NUMBERS:
        return None
    kernels = weight.shape[0]
    at = addresses(x.dtype, (x, x.numel()), (weight, kernels * kernel_size.numel()), (bias, channels))
    if at is None:
        return None
    output = torch.empty_like(x)
    in_threads(module.convolve_maps, batch * channels, x.numel() * kernel_size.numel(), ZEROS[x.dtype], *at,
               output.data_ptr(), kernels, channels, (height, width, *kernel_size, *dilation))
    return output

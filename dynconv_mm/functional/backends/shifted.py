"""A depthwise convolution as a sum of products: the input, shifted to each place of the kernel, times its value."""
from __future__ import annotations

from torch import Tensor

from ..mixture_conv import MIXTURE_CONV, Mixture, sample_kernels
from ..operator import Backend
from .im2col import windows_of


def shifted(m: Mixture) -> Tensor:
    """A pass over the features for each element of the kernel."""
    batch, channels = m.input.shape[:2]
    kernel_size = m.weight.shape[3:]
    windows = windows_of(m.input, kernel_size, m.stride, m.padding, m.dilation)
    values = sample_kernels(m).reshape(batch, channels, -1, *kernel_size, 1, 1)
    y = None
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            window, value = windows[:, :, None, i, j], values[:, :, :, i, j]
            if y is None:
                y = window * value
            else:
                y = y.addcmul(window, value) if y.requires_grad else y.addcmul_(window, value)
    y = y.flatten(1, 2)
    return y if m.bias is None else y + m.bias[:, None, None]


MIXTURE_CONV.backends['shifted'] = Backend(shifted, lambda m: None if m.groups > 1 and m.weight.shape[2] == 1
                                           else 'a convolution that is not depthwise')

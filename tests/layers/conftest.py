"""How a mixture layer is held against its equation, written out."""
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

CONV_ARGUMENTS = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups', 'bias',
                  'padding_mode')


def mix(weight: Tensor, bias: Tensor | None, alpha: Tensor, x: Tensor, options: dict) -> Tensor:
    """Sample by sample: the n kernels times their attention, added up one by one, as a plain convolution's kernel."""
    conv = nn.Conv2d(dtype=x.dtype, **{name: value for name, value in options.items() if name in CONV_ARGUMENTS})
    samples = []
    for b in range(len(x)):
        kernel = 0
        for i in range(len(weight)):
            kernel = kernel + alpha[b, i] * weight[i]
        parameters = {'weight': kernel} if bias is None else {'weight': kernel, 'bias': bias}
        samples.append(functional_call(conv, parameters, x[b:b + 1], strict=True))
    return torch.cat(samples)


@pytest.fixture
def mix_literally() -> Callable:
    return mix

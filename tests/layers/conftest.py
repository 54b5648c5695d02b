"""How a mixture layer is held against its equation, written out."""
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

CONV_ARGUMENTS = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups', 'bias',
                  'padding_mode')


def randomize(layer: nn.Module) -> nn.Module:
    """All parameters random, so that none can be left out unnoticed."""
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=.5)
    return layer


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


@pytest.fixture
def assert_equal_in_value_and_gradient() -> Callable:
    """Compare two functions of the same inputs, and the gradients of the sum of their squares, to 1e-9."""

    def check(actual: Callable, expected: Callable, inputs: dict[str, Tensor]) -> None:
        (y, gradients), (z, expected_gradients) = (
            (output, torch.autograd.grad((output ** 2).sum(), list(inputs.values())))
            for output in (actual(), expected()))
        assert y.shape == z.shape and (y - z).abs().max() <= 1e-9
        for name, gradient, other in zip(inputs, gradients, expected_gradients):
            assert (gradient - other).abs().max() <= 1e-9 * (1 + other.abs().max()), name
            assert other.any(), f'no gradient for {name}: nothing is compared'

    return check


@pytest.fixture
def make_random() -> Callable:
    return randomize

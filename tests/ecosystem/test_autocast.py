"""Under autocast layers and operators put out what ``nn.Conv2d`` does."""
from __future__ import annotations

import itertools

import pytest
import torch
from conv_layers import CHANNELS, make_features
from torch import Tensor, nn

from dynconv_mm.functional import involution2d, mixture_conv2d, sample_conv2d

MIXED = list(itertools.product([torch.float32, torch.bfloat16], repeat=2))
OPERATORS = {
    'involution2d': (lambda x, kernels: involution2d(x, kernels, padding=1), (2, 2, 3, 3, 9, 7)),
    'sample_conv2d': (lambda x, kernels: sample_conv2d(x, kernels, padding=1), (2, 4, CHANNELS, 3, 3)),
    'mixture_conv2d': (lambda x, kernels: mixture_conv2d(x, kernels, padding=1, kernel_attention=torch.rand(2, 3)),
                       (3, 4, CHANNELS, 3, 3)),
}


@pytest.mark.one_at_a_time('name', 'training', 'dtype', 'batch', 'grad_mode')
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('batch', [1, 2])
def test_the_dtype_of_a_layers_output(layer, training, dtype, batch, grad_mode):
    layer.train(training)
    conv, x = nn.Conv2d(CHANNELS, CHANNELS, 3), make_features(batch, dtype=dtype)
    assert layer.bias is not None
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
        assert y.dtype == conv(x).dtype == torch.bfloat16
    exact = layer(x.float())
    assert (y.float() - exact).abs().max() < 0.1 * exact.abs().max()
    if grad_mode:
        y.float().square().sum().backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


@pytest.mark.parametrize(('x_dtype', 'kernel_dtype'), MIXED, ids=str)
@pytest.mark.parametrize('operator', OPERATORS)
def test_operators_take_mixed_dtypes(operator, x_dtype, kernel_dtype, grad_mode):
    call, shape = OPERATORS[operator]
    x, kernels = make_features(dtype=x_dtype).requires_grad_(), torch.randn(shape).to(kernel_dtype).requires_grad_()
    with torch.random.fork_rng(), torch.autocast('cpu', torch.bfloat16):
        y = call(x, kernels)
    assert y.dtype == torch.bfloat16
    expected: Tensor = call(x.bfloat16().float(), kernels.bfloat16().float())
    assert (y.float() - expected).abs().max() < 0.05 * expected.abs().max()
    if grad_mode:
        y.float().sum().backward()
        assert x.grad.dtype == x_dtype and kernels.grad.dtype == kernel_dtype

"""Involution2d: equal to the reference's layer and to its equations, and at home in the OpenMMLab stack."""
from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from conv_layers import randomize
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import ConvModule, build_conv_layer
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.layers import Involution2d

SMALL = dict(in_channels=12, out_channels=12, kernel_size=3, group_channels=4)


def make_layer(**options) -> Involution2d:
    """In float64, all of whose parameters and statistics are random."""
    return randomize(Involution2d(**{**SMALL, **options}).double())


def make_input(batch: int = 3, height: int = 9, width: int = 6) -> Tensor:
    return torch.randn(batch, 12, height, width, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize('name', ['involution_0', 'involution_1'])
def test_golden(name):
    golden = Golden(name)
    channels, kernel_size, stride = golden.meta['args']
    golden.check(Involution2d(channels, channels, kernel_size, stride, bias=False))


def pool(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Averages over the pixels that there are, also in a last window that is not full."""
    rows = [x[:, :, top:top + stride[0], left:left + stride[1]].mean((2, 3))
            for top in range(0, x.shape[2], stride[0]) for left in range(0, x.shape[3], stride[1])]
    return torch.stack(rows, -1).unflatten(-1, (-(-x.shape[2] // stride[0]), -(-x.shape[3] // stride[1])))


def literal(layer: Involution2d, x: Tensor, training: bool) -> Tensor:
    """Eq. 4 to 6 from the parameters of a layer, by im2col."""
    hidden = torch.einsum('oi,bihw->bohw', layer.conv1.conv.weight[:, :, 0, 0], pool(x, layer.stride))
    norm = layer.conv1.norm
    mean, var = norm.running_mean, norm.running_var
    if training:
        mean, var = hidden.mean((0, 2, 3)), hidden.var((0, 2, 3), correction=0)
    column = (slice(None), None, None)
    hidden = (hidden - mean[column]) / torch.sqrt(var[column] + 1e-5) * norm.weight[column] + norm.bias[column]
    kernels = torch.einsum('oi,bihw->bohw', layer.conv2.conv.weight[:, :, 0, 0], hidden.relu())
    kernels = kernels + layer.conv2.conv.bias[column]
    groups, area = layer.in_channels // layer.group_channels, math.prod(layer.kernel_size)
    kernels = kernels.view(len(x), groups, 1, area, *kernels.shape[2:])
    padding = [d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size)]
    if layer.padding_mode != 'zeros':
        x, padding = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), layer.padding_mode), 0
    columns = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    columns = columns.view(len(x), groups, layer.group_channels, area, *kernels.shape[4:])
    y = (kernels * columns).sum(3).flatten(1, 2)
    return y if layer.bias is None else y + layer.bias[column]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('options', [
    dict(), dict(bias=False), dict(kernel_size=(3, 5)), dict(stride=2), dict(stride=(3, 2), kernel_size=5),
    dict(dilation=(2, 1)), dict(stride=2, dilation=2), dict(group_channels=12), dict(group_channels=1),
    dict(reduction=1 / 3), dict(padding=1), dict(padding='same'), dict(padding_mode='reflect'),
], ids=str)
def test_equations(options, training):
    layer, x = make_layer(**options), make_input().requires_grad_()
    inputs = [x, *layer.parameters()]
    expected = literal(layer, x, training)
    expected_gradients = torch.autograd.grad(expected.square().sum(), inputs)
    actual = layer.train(training)(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
    for gradient, wanted in zip(torch.autograd.grad(actual.square().sum(), inputs), expected_gradients):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.sampled_from([1, 3, 5, 7]), st.integers(1, 2))
def test_the_size_is_that_of_a_convolution(height, width, stride, kernel_size, dilation):
    """Odd sizes and those smaller than the kernel or the stride too; nothing is cropped."""
    layer = Involution2d(4, 4, kernel_size, stride, dilation=dilation, group_channels=2).eval()
    conv = nn.Conv2d(4, 4, kernel_size, stride, dilation * (kernel_size // 2), dilation)
    x = torch.randn(1, 4, height, width)
    assert layer(x).shape == conv(x).shape
    assert layer.compute_kernels(x).shape == (1, 2, kernel_size, kernel_size, *conv(x).shape[2:])


@pytest.mark.parametrize(('name', 'values'), [
    ('in_channels', (0, 8., None)), ('out_channels', (0, 24)), ('kernel_size', (2, (3, 4), 0, '3', True)),
    ('stride', (0, '2')), ('padding', (0, 2, (1, 2), 'full')), ('dilation', (0, )), ('groups', (2, 12, 0)),
    ('padding_mode', ('constant', )), ('group_channels', (5, 16, 0, 2., True)),
    ('reduction', (0, 2, '1/4', True, 1 / 100)), ('norm_cfg', ('BN', {})),
])
def test_bad_arguments_are_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf'\b{name}\b'):
            pytest.fail(f'{name}={value!r} was taken: {Involution2d(**{**SMALL, name: value})}')


def test_extra_repr():
    assert Involution2d(32, 32, bias=False).extra_repr() == (
        '32, 32, kernel_size=(7, 7), stride=(1, 1), padding=(3, 3), bias=False, group_channels=16')


def test_in_a_conv_module():
    module = ConvModule(12, 12, 3, padding=1, conv_cfg=dict(type='Involution2d', group_channels=4),
                        norm_cfg=dict(type='BN'))
    assert isinstance(module.conv, Involution2d) and module.conv.bias is None
    module.init_weights()
    x = torch.randn(2, 12, 5, 7)
    y = module.eval()(x)
    torch.testing.assert_close(y, module.norm(module.conv(x)).relu())
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    layer = build_conv_layer(dict(type='Involution2d', group_channels=4), 12, 12, 3, padding=1, bias=False)
    assert isinstance(layer, Involution2d)


def test_initialisation():
    torch.manual_seed(0)
    layer = Involution2d(64, 64)
    before = copy.deepcopy(layer.state_dict())
    layer.init_weights()
    for conv, fan_out in ((layer.conv1.conv, 16), (layer.conv2.conv, 49 * 4)):
        assert abs(conv.weight.std() / math.sqrt(2 / fan_out) - 1) < .1
    assert not layer.bias.any() and not layer.conv2.conv.bias.any()
    assert not torch.equal(before['conv1.conv.weight'], layer.conv1.conv.weight)


def through_state_dict(layer: Involution2d) -> Involution2d:
    other = Involution2d(**SMALL).double()
    other.load_state_dict(layer.state_dict(), strict=True)
    return other


@pytest.mark.parametrize('make_copy', [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)),
                                       through_state_dict], ids=['deepcopy', 'pickle', 'state_dict'])
def test_copies(make_copy):
    layer, x = make_layer().eval(), make_input()
    assert torch.equal(make_copy(layer).eval()(x), layer(x))


@pytest.mark.parametrize('batch', [0, 1])
def test_small_batches_in_training(batch):
    layer, x = make_layer(stride=2).train(), make_input(batch).requires_grad_()
    y = layer(x)
    assert y.shape == (batch, 12, 5, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_channels_last():
    layer, x = make_layer(stride=2).eval(), make_input()
    y = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_autocast():
    layer, x = make_layer().float().eval(), make_input().float()
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x.requires_grad_())
    y.float().sum().backward()
    expected = layer(x)
    assert (y - expected).abs().max() < .05 * expected.abs().max() and x.grad.dtype == torch.float32


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_device_and_dtype(device):
    layer = Involution2d(**SMALL, device=device, dtype=torch.float64)
    y = layer(torch.empty(2, 12, 5, 5, device=device, dtype=torch.float64))
    assert y.shape == (2, 12, 5, 5) and y.device.type == device and y.dtype == torch.float64


@pytest.mark.slow
def test_compiled():
    layer, x = make_layer(stride=2).float().train(), make_input().float()
    expected = layer(x)
    expected_gradients = torch.autograd.grad(expected.square().sum(), list(layer.parameters()))
    actual = torch.compile(layer, fullgraph=True)(x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.autograd.grad(actual.square().sum(), list(layer.parameters())),
                               expected_gradients, rtol=1e-3, atol=1e-2)

"""DCDC2d: equal to its equations, with all options of the paper, and at home in the OpenMMLab stack."""
from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from conv_layers import randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.layers import DCDC2d

SMALL = dict(in_channels=12, out_channels=12, lsa_kernel_size=5, group_channels=4)


def make_layer(**options) -> DCDC2d:
    """In float64, all of whose parameters and statistics are random."""
    return randomize(DCDC2d(**{**SMALL, **options}).double())


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def make_input(batch: int = 3, height: int = 9, width: int = 6) -> Tensor:
    return torch.randn(batch, 12, height, width, generator=torch.Generator().manual_seed(1)).double()


class Literal:
    """Eq. 7 to 11, from the state of a layer and the options that it was built with."""

    def __init__(self, layer: DCDC2d, options: dict, training: bool) -> None:
        self.state, self.training = layer.state_dict(keep_vars=True), training
        self.o = {**SMALL, **dict(stride=1, dilation=1, lsa_dw_kernel_size=3, lsa_depth=2, gsi_kernel_size=1,
                                  gsi='dynamic'), **options}

    def padding(self, kernel_size: int) -> list[int]:
        return [dilation * (kernel_size // 2) for dilation in pair(self.o['dilation'])]

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var = self.state[f'{name}.running_mean'], self.state[f'{name}.running_var']
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        mean, var, weight, bias = (value[:, None, None] for value in (
            mean, var, self.state[f'{name}.weight'], self.state[f'{name}.bias']))
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def lsa(self, x: Tensor) -> Tensor:
        o, hidden = self.o, x
        if o['stride'] != 1:
            hidden = F.avg_pool2d(x, o['stride'], o['stride'], ceil_mode=True, count_include_pad=False)
        for number in range(1, o['lsa_depth'] + 1):
            if o['lsa_dw_kernel_size'] is not None:
                weight = self.state[f'lsa.dw{number}.conv.weight']
                hidden = F.conv2d(hidden, weight, padding=o['lsa_dw_kernel_size'] // 2, groups=len(weight))
                hidden = self.norm(f'lsa.dw{number}.bn', hidden)
            hidden = torch.einsum('oi,bihw->bohw', self.state[f'lsa.conv{number}.conv.weight'][:, :, 0, 0], hidden)
            if number < o['lsa_depth']:
                hidden = self.norm(f'lsa.conv{number}.bn', hidden).relu()
        hidden = hidden + self.state[f'lsa.conv{o["lsa_depth"]}.conv.bias'][:, None, None]
        k, groups = o['lsa_kernel_size'], x.shape[1] // o['group_channels']
        kernels = hidden.unflatten(1, (groups, 1, k * k))
        columns = F.unfold(x, k, o['dilation'], self.padding(k), o['stride'])
        return (columns.view(len(x), groups, -1, k * k, *hidden.shape[2:]) * kernels).sum(3).flatten(1, 2)

    def gsi(self, x: Tensor) -> Tensor:
        o = self.o
        if o['gsi'] == 'none':
            return x.new_zeros(())
        if o['gsi'] == 'conv_large':
            return F.conv2d(x, self.state['gsi.weight'], None, o['stride'], self.padding(3), o['dilation'])
        hidden = torch.einsum('oi,bihw->bohw', self.state['gsi.conv1.conv.weight'][:, :, 0, 0], x).relu()
        samples = []
        for sample in hidden:
            if o['gsi'] == 'conv_small':
                kernel = self.state['gsi.conv.weight']
            else:
                kernel = self.state['gsi.fc.weight'][:, :, 0, 0] @ sample.mean((1, 2)) + self.state['gsi.fc.bias']
                kernel = kernel.view(len(sample), len(sample), o['gsi_kernel_size'], o['gsi_kernel_size'])
            samples.append(F.conv2d(sample, kernel, None, o['stride'], self.padding(kernel.shape[-1]), o['dilation']))
        y = torch.einsum('oi,bihw->bohw', self.state['gsi.conv2.conv.weight'][:, :, 0, 0], torch.stack(samples))
        return self.norm('gsi.conv2.bn', y)

    def __call__(self, x: Tensor) -> Tensor:
        y = self.lsa(x) + self.gsi(x)
        return y + self.state['bias'][:, None, None] if 'bias' in self.state else y


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('options', [
    dict(), dict(bias=False), dict(stride=2), dict(stride=3, gsi_kernel_size=5), dict(dilation=2, gsi_kernel_size=3),
    dict(lsa_kernel_size=3, lsa_dw_kernel_size=5), dict(lsa_dw_kernel_size=None), dict(lsa_depth=1),
    dict(lsa_depth=3), dict(gsi_ratio=2.), dict(gsi='none'), dict(gsi='conv_small', stride=2),
    dict(gsi='conv_large', dilation=2), dict(gsi='conv_large', stride=(2, 3)),
    dict(stride=(3, 2), dilation=(1, 2), gsi_kernel_size=3), dict(lsa_depth=1, lsa_dw_kernel_size=None),
    dict(reduction=1 / 2), dict(group_channels=6),
], ids=str)
def test_equations(options, training):
    layer, x = make_layer(**options), make_input().requires_grad_()
    inputs = [x, *layer.parameters()]
    expected = Literal(layer, options, training)(x)
    expected_gradients = torch.autograd.grad(expected.square().sum(), inputs)
    actual = layer.train(training)(x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-9)
    for gradient, wanted in zip(torch.autograd.grad(actual.square().sum(), inputs), expected_gradients):
        torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-8 * max(1, wanted.abs().max().item()))


@pytest.mark.parametrize('size', [(1, 1), (2, 1), (1, 7)], ids=str)
@pytest.mark.parametrize('options', [dict(stride=3), dict(dilation=2), dict(gsi='conv_large', stride=2)], ids=str)
def test_equations_of_maps_smaller_than_the_kernel_or_the_stride(options, size):
    options = {**options, 'gsi_kernel_size': 5}
    layer, x = make_layer(**options).eval(), make_input(2, *size)
    torch.testing.assert_close(layer(x), Literal(layer, options, False)(x), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(('channels', 'ratio', 'width'), [(64, 1., 8), (128, 1., 11), (128, 1.5, 16), (512, 2., 45)])
def test_gsi_width(channels, ratio, width):
    """c = ⌊λ·√C⌋"""
    layer = DCDC2d(channels, channels, gsi_ratio=ratio, gsi_kernel_size=3, device='meta')
    assert layer.gsi.fc.weight.shape == (width**2 * 9, width, 1, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.sampled_from([1, 3, 7]), st.sampled_from([1, 3, 5]),
       st.sampled_from(['dynamic', 'none', 'conv_small', 'conv_large']))
def test_the_size_is_that_of_a_convolution(height, width, stride, lsa_kernel_size, gsi_kernel_size, gsi):
    """Odd sizes and those smaller than the kernel or the stride too; nothing is cropped."""
    layer = DCDC2d(4, 4, 3, stride, 1, group_channels=2, lsa_kernel_size=lsa_kernel_size,
                   gsi_kernel_size=gsi_kernel_size, gsi=gsi).eval()
    x = torch.randn(2, 4, height, width)
    assert layer(x).shape == nn.Conv2d(4, 4, 3, stride, 1)(x).shape


@pytest.mark.parametrize(('name', 'values'), [
    ('in_channels', (0, 8., None)), ('out_channels', (0, 24)), ('kernel_size', (2, 0, '3')), ('stride', (0, '2')),
    ('padding', (0, 2, 'full')), ('dilation', (0, )), ('groups', (2, 0)), ('padding_mode', ('reflect', 'constant')),
    ('lsa_kernel_size', (2, 0, None, (3, 3), True)), ('lsa_dw_kernel_size', (4, 0, '3', (3, 3))),
    ('lsa_depth', (0, 1.5, True, None)), ('gsi_kernel_size', (2, -1, None, (1, 1))),
    ('gsi_ratio', (0, -1, .1, math.nan, math.inf, '1', True)), ('gsi', ('static', None, ['none'])),
    ('reduction', (0, 2, None)), ('group_channels', (5, 0, 16)), ('norm_cfg', ('BN', {})),
])
def test_bad_arguments_are_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf'\b{name}\b'):
            pytest.fail(f'{name}={value!r} was taken: {DCDC2d(**{**SMALL, name: value})}')


def test_in_a_conv_module():
    """In the place of a 3×3 convolution, with its kernel_size and padding."""
    module = ConvModule(12, 12, 3, stride=2, padding=1, conv_cfg=dict(type='DCDC2d', group_channels=4),
                        norm_cfg=dict(type='BN'))
    assert isinstance(module.conv, DCDC2d) and module.conv.bias is None and module.conv.lsa.kernel_size == (7, 7)
    module.init_weights()
    x = torch.randn(2, 12, 5, 7)
    y = module.eval()(x)
    torch.testing.assert_close(y, module.norm(module.conv(x)).relu())
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize('gsi', ['dynamic', 'conv_small', 'conv_large'])
def test_initialisation(gsi):
    torch.manual_seed(0)
    layer = DCDC2d(64, 64, gsi=gsi, gsi_ratio=4., gsi_kernel_size=3)
    for _ in range(2):
        for name, parameter in layer.named_parameters():
            if name.endswith('bias'):
                assert not parameter.any(), name
            elif parameter.dim() == 4:
                fan_out = parameter.shape[0] * parameter[0, 0].numel()  # torch's, also of depthwise convolutions
                assert abs(parameter.std() / math.sqrt(2 / fan_out) - 1) < .25, name
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(3.)
        layer.init_weights()


def test_extra_repr():
    assert DCDC2d(32, 32, bias=False, gsi='none').extra_repr() == (
        "32, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False, gsi='none'")


def through_state_dict(layer: DCDC2d) -> DCDC2d:
    other = DCDC2d(**SMALL).double()
    other.load_state_dict(layer.state_dict(), strict=True)
    return other


@pytest.mark.parametrize('make_copy', [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)),
                                       through_state_dict], ids=['deepcopy', 'pickle', 'state_dict'])
def test_copies(make_copy):
    layer, x = make_layer().eval(), make_input()
    assert torch.equal(make_copy(layer).eval()(x), layer(x))


@pytest.mark.parametrize('batch', [0, 1])
@pytest.mark.parametrize('gsi', ['dynamic', 'conv_small', 'conv_large'])
def test_small_batches_in_training(gsi, batch):
    layer, x = make_layer(stride=2, gsi=gsi).train(), make_input(batch).requires_grad_()
    y = layer(x)
    assert y.shape == (batch, 12, 5, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape and all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize('options', [dict(), dict(gsi_kernel_size=3, stride=2), dict(gsi='conv_small'),
                                     dict(gsi='conv_large'), dict(gsi='none')], ids=str)
def test_channels_last(options):
    layer, x = make_layer(**options).eval(), make_input()
    y = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('gsi', ['dynamic', 'conv_small', 'conv_large'])
def test_autocast(gsi, training):
    layer, x = make_layer(gsi=gsi, norm_cfg=dict(type='BN', momentum=0)).float().train(training), make_input().float()
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x.requires_grad_())
    y.float().sum().backward()
    expected = layer(x)
    assert (y - expected).abs().max() < .05 * expected.abs().max() and x.grad.dtype == torch.float32


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_device_and_dtype(device):
    layer = DCDC2d(**SMALL, device=device, dtype=torch.float64)
    y = layer(torch.empty(2, 12, 5, 5, device=device, dtype=torch.float64))
    assert y.shape == (2, 12, 5, 5) and y.device.type == device and y.dtype == torch.float64


@pytest.mark.parametrize(('backend', 'gsi_kernel_size'), [('inductor', 3), ('aot_eager', 1)])
def test_compiled(backend, gsi_kernel_size):
    layer, x = make_layer(stride=2, gsi_kernel_size=gsi_kernel_size).float().train(), make_input().float()
    expected = layer(x)
    expected_gradients = torch.autograd.grad(expected.square().mean(), list(layer.parameters()))
    actual = torch.compile(layer, fullgraph=True, backend=backend)(x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    for gradient, wanted in zip(torch.autograd.grad(actual.square().mean(), list(layer.parameters())),
                                expected_gradients):
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-4 * max(1, wanted.abs().max().item()))

"""FDConv2d is the release's layer and the paper's equations, and starts as a static convolution."""
from __future__ import annotations

import math

import pytest
import torch
from conv_layers import randomize
from golden import Golden
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.conversion.fdconv_names import package_names
from dynconv_mm.functional.frequency import groups_of_order
from dynconv_mm.layers import FDConv2d

SMALL = dict(in_channels=17, out_channels=18, kernel_size=3, kernel_num=5)
OPTIONS = [
    dict(),
    dict(kernel_size=1),
    dict(kernel_num=1, bias=False),
    dict(in_channels=20, stride=2, padding=1),
    dict(stride=(2, 3), padding=(2, 1), dilation=(1, 2), kernel_num=7),
    dict(out_channels=33, padding='same', dilation=2),
    dict(padding=(1, 2), padding_mode='reflect'),
    dict(reduction=1, norm_cfg=dict(type='LN')),
]


def make_layer(**options) -> FDConv2d:
    return randomize(FDConv2d(**{**SMALL, **options}).double().eval())


def make_input(layer: FDConv2d, batch: int = 3) -> Tensor:
    return torch.randn(batch, layer.in_channels, 9, 7, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize('name', ['fdconv_0', 'fdconv_1', 'fdconv_2'])
def test_golden(name):
    golden = Golden(name)
    layer = FDConv2d(**golden.meta['args'])
    golden.state_dict, golden.gradients = map(package_names, (golden.state_dict, golden.gradients))
    rows, columns = golden.arrays['indices'][0].flatten(1)
    groups = golden.state_dict['coefficient_groups']
    order = rows * groups.shape[1] + columns
    golden.state_dict['coefficient_groups'] = groups_of_order(order, layer.kernel_num).view(groups.shape)
    del golden.gradients['coefficient_groups']
    assert golden.gradients.keys() == dict(layer.named_parameters()).keys()
    golden.check(layer)


def test_order_of_the_golden_vectors():
    """The distances of the release's order rise, and our groups differ from its where distances are equal alone."""
    rows, columns = Golden('fdconv_0').arrays['indices'][0].flatten(1)
    layer = FDConv2d(32, 48, 3, kernel_num=16)
    distance = (torch.minimum(rows, 144 - rows) * 96)**2 + (columns * 144)**2
    sorted_groups = layer.coefficient_groups[rows, columns].long()
    assert (distance.diff() >= 0).all()
    released = torch.arange(len(rows)) * 16 // len(rows)
    boundaries = {int(distance[i]) for i in range(1, len(rows)) if released[i] != released[i - 1]}
    assert {int(d) for d in distance[sorted_groups != released]} <= boundaries


def literal_kernels(layer: FDConv2d, x: Tensor) -> Tensor:
    """Eq. 3 to 7, coefficient by coefficient in the order of their distance, by the inverse transform's own sum."""
    attention, (height, width) = layer.attention, layer.kernel_size
    rows, columns = layer.out_channels * height, layer.in_channels * width
    pooled = x.sum((2, 3)) / (x.shape[2] * x.shape[3])

    def fully_connected(fc: nn.Module, features: Tensor) -> Tensor:
        y = features @ fc.weight[:, :, 0, 0].T
        return y if fc.bias is None else y + fc.bias

    hidden = attention.relu.scale * attention.bn(fully_connected(attention.fc, pooled)).clamp(min=0)**2 \
        + attention.relu.bias
    alpha = {name: 2 / (1 + torch.exp(-fully_connected(attention.get_submodule(f'{name}_fc'), hidden)))
             for name in attention.head_channels}
    keys = sorted((math.hypot(min(row, rows - row) / rows, column / columns), row, column)
                  for row in range(rows) for column in range(columns // 2 + 1))
    distances = torch.tensor([key[0] for key in keys])
    n, groups = layer.kernel_num, torch.empty(rows, columns // 2 + 1, dtype=torch.long)
    for place, (_, row, column) in enumerate(keys):
        groups[row, column] = place * n // len(keys)
    ties = {round(float(distances[i]), 9) for i in range(1, len(keys))
            if i * n // len(keys) != (i - 1) * n // len(keys)}
    differs = groups != layer.coefficient_groups  # by rounding, where distances are equal
    assert {round(math.hypot(min(row, rows - row) / rows, column / columns), 9)
            for row, column in differs.nonzero().tolist()} <= ties
    scale = min(layer.in_channels, layer.out_channels) // 2
    spectrum = torch.view_as_complex(layer.dft_weight) * scale * alpha['kernel'][:, layer.coefficient_groups.long()]
    spectrum = torch.fft.ifft(spectrum, dim=1)
    # of a real result the other half of the columns is the conjugate of the first
    times, frequencies = torch.arange(columns).double(), torch.arange(columns // 2 + 1).double()
    wave = torch.exp(2j * math.pi * times[:, None] * frequencies / columns)
    count = torch.where((frequencies == 0) | (2 * frequencies == columns), 1., 2.)
    matrix = (spectrum[:, :, None] * wave * count).real.sum(3) / columns
    kernels = matrix.view(-1, layer.out_channels, height, layer.in_channels, width).permute(0, 1, 3, 2, 4)
    local = F.conv1d(F.layer_norm(pooled, pooled.shape[1:], layer.local_attention.norm.weight,
                                  layer.local_attention.norm.bias)[:, None], layer.local_attention.conv.weight,
                     padding=layer.local_attention.conv.weight.shape[2] // 2)
    local = 2 / (1 + torch.exp(-local)).view(-1, layer.out_channels, height, width, layer.in_channels)
    kernels = kernels * local.permute(0, 1, 4, 2, 3) * alpha['channel'][:, None, :, None, None] \
        * alpha['filter'][:, :, None, None, None]
    return kernels * alpha['spatial'].view(-1, 1, 1, height, width) if 'spatial' in alpha else kernels


def literal_features(layer: FDConv2d, x: Tensor) -> Tensor:
    """Eq. 8 to 10 band by band, with masks resized by torch."""
    if layer.kernel_size == (1, 1):
        return x
    gates = 2 / (1 + torch.exp(-F.conv2d(x, layer.band_conv.weight, layer.band_conv.bias, padding=1)))
    spectrum, previous, y = torch.fft.rfft2(x, norm='ortho'), x, 0
    rows, columns = torch.fft.fftfreq(64).abs(), torch.arange(33) / 64
    for band, below in enumerate((.25 - 1e-3, .125 + 1e-3, .0625 + 1e-3)):
        mask = (torch.maximum(rows[:, None], columns) < below).double()
        mask = F.interpolate(mask[None, None], spectrum.shape[2:], mode='nearest')
        low = torch.fft.irfft2(spectrum * mask, x.shape[2:], norm='ortho')
        y = y + gates[:, band:band + 1] * (previous - low)
        previous = low
    return y + previous


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equations(options, assert_equal_in_value_and_gradient):
    layer = make_layer(**options)
    x = make_input(layer).requires_grad_()
    conv = nn.Conv2d(dtype=x.dtype, **{name: value for name, value in {**SMALL, **options}.items()
                                       if name not in ('kernel_num', 'reduction', 'norm_cfg')})
    bias = {} if layer.bias is None else {'bias': layer.bias}

    def literal() -> Tensor:
        kernels, features = literal_kernels(layer, x), literal_features(layer, x)
        return torch.cat([torch.func.functional_call(conv, {'weight': kernel, **bias}, features[b:b + 1], strict=True)
                          for b, kernel in enumerate(kernels)])

    assert_equal_in_value_and_gradient(lambda: layer(x), literal, {'x': x, **dict(layer.named_parameters())})


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_starts_as_a_static_convolution(options):
    layer = FDConv2d(**{**SMALL, **options}).double()
    kernel = torch.randn(layer.out_channels, layer.in_channels, *layer.kernel_size).double()
    layer.set_kernel(kernel)
    x = make_input(layer)
    conv = nn.Conv2d(dtype=x.dtype, **{name: value for name, value in {**SMALL, **options}.items()
                                       if name not in ('kernel_num', 'reduction', 'norm_cfg')})
    with torch.no_grad():
        conv.weight.copy_(kernel)
        if conv.bias is not None:
            conv.bias.zero_()
    for mode in (False, True):
        torch.testing.assert_close(layer.train(mode)(x), conv(x), rtol=0, atol=1e-12)


def test_fresh_layers_do_not_depend_on_the_input_but_learn_to():
    layer = FDConv2d(**SMALL).eval()
    x = make_input(layer).float()
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[:1], layer(x[:1]))
        torch.testing.assert_close(layer(2 * x) - layer.bias[:, None, None], 2 * (layer(x) - layer.bias[:, None, None]))
    layer(x).square().sum().backward()
    for head in layer.attention.head_channels:
        assert layer.attention.get_submodule(f'{head}_fc').weight.grad.abs().max() > 0, head
    assert layer.local_attention.conv.weight.grad.abs().max() > 0
    assert layer.band_conv.weight.grad.abs().max() > 0


def test_release_starts_as_the_static_convolution_but_for_a_head():
    """What the release calls its start, all FCs near 0: no further from ours."""
    layer, x = FDConv2d(**SMALL).double(), make_input(FDConv2d(**SMALL))
    expected = layer(x)
    for parameter in (*(layer.attention.get_submodule(f'{head}_fc').weight for head in layer.attention.head_channels),
                      layer.local_attention.conv.weight, layer.band_conv.weight):
        nn.init.normal_(parameter, std=1e-6)
    assert 0 < (layer(x) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize('options', [dict(in_channels=16), dict(out_channels=16), dict(static_channels=17),
                                     dict(kernel_size=5),
                                     dict(kernel_size=(1, 3)), dict(in_channels=3, kernel_size=7, stride=2, padding=3)],
                         ids=str)
def test_unsuited_convolutions_are_ordinary(options):
    torch.manual_seed(0)
    layer = FDConv2d(**{**SMALL, **options})
    conv = nn.Conv2d(**{name: value for name, value in {**SMALL, **options}.items()
                        if name not in ('kernel_num', 'static_channels')})
    conv.load_state_dict(layer.state_dict(), strict=True)
    x = make_input(layer).float()
    assert torch.equal(layer(x), conv(x))
    assert layer.attention_modules() == [] and layer.compute_attentions(x) == {}
    assert layer.extra_repr().endswith(', static')


def test_hooks_see_the_attentions():
    layer = make_layer()
    x, seen = make_input(layer), []
    handle = layer.register_attention_hook(lambda module, attentions: seen.append(attentions))
    layer(x)
    handle.remove()
    layer(x)
    assert len(seen) == 1 and {name: tuple(value.shape) for name, value in seen[0].items()} == dict(
        channel=(3, 17), filter=(3, 18), spatial=(3, 9), kernel=(3, 5))
    for name, value in layer.compute_attentions(x).items():
        assert torch.equal(value, seen[0][name]) and 0 < value.min() < value.max() < 1


def test_structure():
    layer = FDConv2d(64, 32, 3, bias=False)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items() if '.bn.' not in name} == {
        'dft_weight': (96, 97, 2), 'coefficient_groups': (96, 97), 'attention.fc.weight': (16, 64, 1, 1),
        'attention.relu.scale': (1, ), 'attention.relu.bias': (1, ),
        **{f'attention.{head}_fc.{name}': (length, 16, 1, 1)[:4 if name == 'weight' else 1]
           for head, length in dict(channel=64, filter=32, spatial=9, kernel=64).items()
           for name in ('weight', 'bias')},
        'local_attention.norm.weight': (64, ), 'local_attention.norm.bias': (64, ),
        'local_attention.conv.weight': (288, 1, 5), 'band_conv.weight': (3, 64, 3, 3), 'band_conv.bias': (3, )}
    assert layer.coefficient_groups.unique(return_counts=True)[1].unique().tolist() == [145, 146]
    assert layer.extra_repr() == '64, 32, kernel_size=(3, 3), stride=(1, 1), bias=False, kernel_num=64'
    sizes = {channels: FDConv2d(channels, 17, 1, kernel_num=8).local_attention.conv.kernel_size[0]
             for channels in (17, 64, 512, 2048)}
    assert sizes == {17: 3, 64: 5, 512: 5, 2048: 7}


def test_empty_batch_and_formats():
    layer = make_layer(padding=1)
    assert layer(make_input(layer, 0)).shape == (0, 18, 9, 7)
    expected = layer(make_input(layer))
    layer.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(make_input(layer).to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """Fourier transforms run in float32, whatever the rest does."""
    layer = make_layer(padding=1).float()
    x = .1 * make_input(layer).float()
    expected = layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=.05, atol=.05 * expected.abs().max().item())
    if dtype == torch.float16 and torch.__version__ < '2.2':
        pytest.skip('torch 2.1 has no products in float16 on a CPU')
    y = layer.to(dtype)(x.to(dtype))
    assert y.dtype == dtype and layer.coefficient_groups.dtype == torch.uint8
    torch.testing.assert_close(y.float(), expected, rtol=.05, atol=.05 * expected.abs().max().item())


BAD = [('in_channels', (0, 32., True)), ('out_channels', (0, None)), ('groups', (0, 17)), ('kernel_size', (0, '3')),
       ('stride', (0, )), ('padding', (-1, 'full')), ('dilation', (0, )), ('padding_mode', ('constant', )),
       ('kernel_num', (0, 2.5, True, None, 257)), ('reduction', (0, 2, '1/16', True)),
       ('static_channels', (0, 2.5, True)), ('norm_cfg', ('BN', dict(type='None')))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        FDConv2d(**{**SMALL, name: value})


def test_groups_are_refused_with_the_reason():
    with pytest.raises(ValueError, match='groups must be 1, as FDConv2d transforms a kernel as one matrix'):
        FDConv2d(34, 34, 3, groups=2)


def test_more_groups_than_coefficients_are_refused():
    with pytest.raises(ValueError, match='kernel_num must be at most 153 for 153 coefficients'):
        FDConv2d(17, 17, 1, kernel_num=154)


def test_a_step_at_the_layers_rate_is_that_of_the_static_kernel():
    """With the rate of ``coefficient_rates``: all coefficients but those of column 0, which are their own negatives."""
    torch.manual_seed(0)
    layer = FDConv2d(**SMALL).double().eval()
    kernel, x = torch.randn(18, 17, 3, 3).double().requires_grad_(), make_input(layer)
    layer.set_kernel(kernel)
    target = torch.randn(3, 18, 7, 5).double()
    gradient, = torch.autograd.grad((F.conv2d(x, kernel) - target).square().mean(), kernel)
    (layer(x) - target).square().mean().backward()
    with torch.no_grad():
        layer.dft_weight -= .01 * layer.coefficient_rates()['dft_weight'] * layer.dft_weight.grad
        step = (kernel - layer.compute_kernels(x)[0]) / .01
    taken, whole = (torch.fft.rfft2(weight.transpose(1, 2).reshape(54, 51)) for weight in (step, gradient))
    torch.testing.assert_close(taken[:, 1:], whole[:, 1:], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(taken[:, 0], whole[:, 0] / 2, rtol=1e-8, atol=1e-10)

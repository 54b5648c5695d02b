"""WEConv2d is the paper's equations, and what folds it leaves the static convolution."""
from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dynconv_mm.conversion import fold_weight_excitation
from dynconv_mm.layers import WEConv2d
from dynconv_mm.layers.we import calm_magnitudes, excite_magnitudes
from dynconv_mm.models import WEResNet
from dynconv_mm.models.backbones import ResNet

SMALL = dict(in_channels=12, out_channels=4, kernel_size=3, reduction=1 / 4)
OPTIONS = [
    dict(),
    dict(kernel_size=1),
    dict(reduction=1 / 16),
    dict(location=False),
    dict(magnitude=False),
    dict(location=False, magnitude=False),
    dict(kernel_size=(1, 5), padding=(0, 2)),
    dict(bias=False, stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
    dict(groups=2),
    dict(out_channels=12, groups=12),
    dict(padding='same', kernel_size=5, dilation=2),
    dict(padding=(1, 2), padding_mode='reflect'),
]


def make_input(channels: int = 12) -> Tensor:
    return torch.randn(3, channels, 9, 7, generator=torch.Generator().manual_seed(1)).double()


def excite(layer: WEConv2d) -> Tensor:
    """Weight by weight, as the paper has it."""
    kernel = layer.weight
    if layer.location is not None:
        fc1, fc2 = layer.location.fc1, layer.location.fc2
        filters = []
        for filter_ in kernel:
            hidden = fc1.weight[:, :, 0, 0] @ filter_.flatten(1).mean(1) + fc1.bias
            logits = fc2.weight[:, :, 0, 0] @ hidden.clamp(min=0) + fc2.bias
            filters.append(torch.stack([part / (1 + torch.exp(-logit)) for part, logit in zip(filter_, logits)]))
        kernel = torch.stack(filters)
    if layer.magnitude:
        limit = 1.1 * max(abs(value) for value in kernel.flatten().tolist())
        kernel = limit / 2 * torch.log((1 + kernel / limit) / (1 - kernel / limit))
    return kernel


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equation(options, make_random, assert_equal_in_value_and_gradient):
    options = {**SMALL, **options}
    layer, x = make_random(WEConv2d(**options).double()), make_input().requires_grad_()
    if layer.location is not None:
        nn.init.uniform_(layer.location.fc1.bias, .5, 1.5)  # a hidden width of 1 may not be dead
    static = nn.Conv2d(dtype=torch.float64, **{name: value for name, value in options.items()
                                               if name not in ('reduction', 'location', 'magnitude')})

    def literal() -> Tensor:
        kernel = excite(layer)
        return functional_call(static, dict(weight=kernel, bias=layer.bias) if layer.bias is not None
                               else dict(weight=kernel), x)

    assert_equal_in_value_and_gradient(lambda: layer(x), literal, {'x': x, **dict(layer.named_parameters())})
    torch.testing.assert_close(layer.compute_kernel(), excite(layer), rtol=0, atol=1e-9)


def test_large_weights_grow():
    """The largest to M · artanh(1 / 1.1), small ones not at all; zeros stay zeros, and have a gradient."""
    weight = torch.tensor([1., -.5, 1e-6], dtype=torch.float64)
    excited = excite_magnitudes(weight)
    assert excited[0] == pytest.approx(1.1 * math.atanh(1 / 1.1)) and excited[1] < -.53
    assert excited[2] == pytest.approx(1e-6, rel=1e-9)
    torch.testing.assert_close(calm_magnitudes(excited), weight, rtol=1e-12, atol=0)
    zeros = torch.zeros(3, requires_grad=True)
    gradient, = torch.autograd.grad(excite_magnitudes(zeros).sum(), zeros)
    assert not excite_magnitudes(zeros).any()
    torch.testing.assert_close(gradient, torch.ones(3))


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_folded(options, make_random):
    layer, x = make_random(WEConv2d(**{**SMALL, **options}).double()), make_input()
    expected = layer(x)
    layer.fold()
    assert torch.equal(layer(x), expected)
    assert layer.state_dict().keys() == {'weight', 'bias'} - ({'bias'} if layer.bias is None else set())
    layer.fold()
    assert torch.equal(layer(x), expected)


def test_a_weight_that_is_computed_cannot_be_folded():
    layer = nn.utils.spectral_norm(WEConv2d(**SMALL))
    with pytest.raises(ValueError, match='parametrization or a spectral norm'):
        layer.fold()
    assert not layer.fuse_batch_norm(nn.BatchNorm2d(4).eval()) and layer.location is not None


def test_nothing_is_folded_where_a_layer_cannot_be():
    model = nn.Sequential(WEConv2d(**SMALL), nn.utils.spectral_norm(WEConv2d(**SMALL)))
    with pytest.raises(ValueError, match='cannot be folded'):
        fold_weight_excitation(model)
    assert model[0].location is not None


def test_a_network_folds_into_the_static_one(make_random):
    torch.manual_seed(0)
    options = dict(depth=18, stem_channels=16, base_channels=8)
    model, static, image = WEResNet(**options).eval(), ResNet(**options).eval(), torch.randn(2, 3, 64, 64)
    expected = model(image)[0]
    folded = copy.deepcopy(model)
    assert fold_weight_excitation(folded) is folded
    static.load_state_dict(folded.state_dict(), strict=True)
    torch.testing.assert_close(folded(image)[0], expected)
    torch.testing.assert_close(static(image)[0], expected)
    torch.testing.assert_close(model(image)[0], expected, rtol=0, atol=0)


def test_structure():
    layer = WEConv2d(64, 32, 3, bias=False)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        'weight': (32, 64, 3, 3), 'location.fc1.weight': (4, 64, 1, 1), 'location.fc1.bias': (4, ),
        'location.fc2.weight': (64, 4, 1, 1), 'location.fc2.bias': (64, )}
    assert layer.extra_repr() == '64, 32, kernel_size=(3, 3), stride=(1, 1), bias=False'
    assert WEConv2d(8, 6, 1, location=False, magnitude=False).extra_repr() == (
        '8, 6, kernel_size=(1, 1), stride=(1, 1), location=False, magnitude=False')
    assert WEConv2d(3, 6, 1).location.fc1.weight.shape == (1, 3, 1, 1)  # at least one hidden value


BAD = [('in_channels', (0, 8., True)), ('out_channels', (0, None)), ('groups', (0, 5)), ('kernel_size', (0, '3')),
       ('stride', (0, )), ('padding', (-1, 'full')), ('dilation', (0, )), ('padding_mode', ('constant', )),
       ('reduction', (0, 2, True, '1/4')), ('location', (None, 1)), ('magnitude', (None, 'no'))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        WEConv2d(**{**SMALL, name: value})

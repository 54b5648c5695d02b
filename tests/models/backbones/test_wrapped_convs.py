"""What is done to the convolutions and norms of a network holds in eval mode as it does in training."""
from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from thin_networks import BACKBONES, settle
from torch import Tensor, nn
from wrapped import CHANGES, BatchNormAct, global_hooks

from dynconv_mm.layers.conv_arguments import ConvArguments
from dynconv_mm.models.backbones.mobilenet_v2 import InvertedResidual
from dynconv_mm.models.backbones.resnet import ResidualBlock

NETWORKS = ['ODConvResNet', 'DyConvResNet', 'CondConvResNet', 'RedNet', 'ODConvMobileNetV2', 'DyConvMobileNetV2',
            'CondConvMobileNetV2']
BY_CALL = ('subclass', 'patched forward', 'checkpoint_wrapper', 'wrapper', 'forward hook', 'pre-hook')


def places(block: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Of each convolution and its norm: who holds them, under which names."""
    if isinstance(block, InvertedResidual):
        for module in block.conv:
            yield module, 'conv', 'bn'
    else:
        for number, norm in enumerate(block._norms, 1):
            yield block, f'conv{number}', norm


def by_hand(block: nn.Module, x: Tensor) -> Tensor:
    """The modules of a block, called one after the other."""
    shared = () if block.routing is None else (block.routing(x), )
    out, all_places = x, list(places(block))
    for number, (owner, conv, norm) in enumerate(all_places, 1):
        out = getattr(owner, norm)(getattr(owner, conv)(out, *shared))
        if isinstance(block, InvertedResidual):
            out = owner.activate(out) if owner.with_activation else out
        elif number < len(all_places):
            out = torch.relu(out)
    if isinstance(block, InvertedResidual):
        return x + out if block.use_res_connect else out
    return torch.relu(out + (x if block.downsample is None else block.downsample(x)))


@pytest.fixture(params=NETWORKS)
def block(request) -> nn.Module:
    """A network's last block with a dynamic convolution."""
    torch.manual_seed(0)
    model = settle(BACKBONES[request.param](), size=(32, 32)).double()
    return [block for block in model.modules() if isinstance(block, (ResidualBlock, InvertedResidual))
            and any(isinstance(getattr(owner, conv), ConvArguments) for owner, conv, _ in places(block))][-1]


@pytest.fixture(params=[1, 2])
def x(block, request) -> Tensor:
    owner, conv, _ = next(places(block))
    return torch.randn(request.param, getattr(owner, conv).in_channels, 5, 4, dtype=torch.float64)


@pytest.fixture(params=[True, False], ids=['grad', 'no_grad'], autouse=True)
def grad_mode(request):
    with torch.set_grad_enabled(request.param):
        yield


def assert_called_alike(block: nn.Module, x: Tensor, calls: list[Tensor]) -> None:
    calls.clear()
    expected = by_hand(block, x)
    seen = list(calls)
    calls.clear()
    torch.testing.assert_close(block(x), expected, rtol=1e-8, atol=1e-8)
    assert len(seen) == 1
    torch.testing.assert_close(calls, seen, rtol=1e-8, atol=1e-8)


def test_an_unchanged_block(block, x):
    torch.testing.assert_close(block(x), by_hand(block, x), rtol=1e-8, atol=1e-8)


@pytest.mark.one_at_a_time('block', 'which')
@pytest.mark.parametrize('which', ['conv', 'norm'])
def test_a_changed_module(block, x, which):
    for index, change in itertools.product(range(len(list(places(block)))), BY_CALL):
        copied, calls = copy.deepcopy(block), []
        owner, *names = list(places(copied))[index]
        name = names[which == 'norm']
        setattr(owner, name, CHANGES[change](getattr(owner, name), calls))
        assert_called_alike(copied, x, calls)


def test_norms_with_an_activation_in_them(block, x):
    plain = block(x)
    for owner, _, name in places(block):
        norm = BatchNormAct(getattr(owner, name).num_features).double().eval()
        norm.load_state_dict(getattr(owner, name).state_dict())
        setattr(owner, name, norm)
    torch.testing.assert_close(block(x), by_hand(block, x), rtol=1e-8, atol=1e-8)
    assert not torch.allclose(block(x), plain)


@pytest.mark.one_at_a_time('block', 'which')
@pytest.mark.parametrize('which', ['conv', 'norm'])
def test_hooks_of_all_modules(block, x, which):
    for owner, *names in places(block):
        calls = []
        with global_hooks(getattr(owner, names[which == 'norm']), calls):
            assert_called_alike(block, x, calls)

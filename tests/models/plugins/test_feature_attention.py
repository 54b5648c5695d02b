"""SE, CBAM and ECA are their papers' equations, in values and gradients."""
from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_plugin_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from dynconv_mm.models import CBAM, ECALayer, SELayer

LAYERS = [SELayer, CBAM, ECALayer]


def mlp(layer: nn.Module, pooled: Tensor) -> Tensor:
    hidden = (pooled @ layer.mlp.fc1.weight[:, :, 0, 0].T).clamp(min=0)
    return hidden @ layer.mlp.fc2.weight[:, :, 0, 0].T


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def se(layer: SELayer, x: Tensor) -> Tensor:
    return torch.einsum('bchw,bc->bchw', x, sigmoid(mlp(layer, x.mean((2, 3)))))


def cbam(layer: CBAM, x: Tensor) -> Tensor:
    highest = x.flatten(2).sort(-1).values[:, :, -1]
    x = torch.einsum('bchw,bc->bchw', x, sigmoid(mlp(layer, x.mean((2, 3))) + mlp(layer, highest)))
    kernel, (batch, _, height, width) = layer.spatial_conv.weight[0], x.shape
    k = kernel.shape[-1]
    places = x.new_zeros(batch, 2, height + k - 1, width + k - 1)
    inner = slice(k // 2, k // 2 + height), slice(k // 2, k // 2 + width)
    places[:, 0, inner[0], inner[1]] = x.mean(1)
    places[:, 1, inner[0], inner[1]] = x.sort(1).values[:, -1]
    logits = sum(kernel[c, i, j] * places[:, c, i:i + height, j:j + width]
                 for c in range(2) for i in range(k) for j in range(k))
    return x * sigmoid(logits)[:, None]


def eca(layer: ECALayer, x: Tensor) -> Tensor:
    kernel, pooled = layer.conv.weight[0, 0], x.mean((2, 3))
    logits = torch.zeros_like(pooled)
    channels, k = x.shape[1], len(kernel)
    for c in range(channels):
        for j in range(k):
            neighbour = c + j - k // 2
            if 0 <= neighbour < channels:
                logits[:, c] = logits[:, c] + kernel[j] * pooled[:, neighbour]
    return torch.einsum('bchw,bc->bchw', x, sigmoid(logits))


@pytest.mark.parametrize(('make', 'literal'), [
    (lambda: SELayer(20, ratio=3), se), (lambda: SELayer(20, ratio=64), se),
    (lambda: CBAM(20, ratio=3), cbam), (lambda: CBAM(20, ratio=4, kernel_size=3), cbam),
    (lambda: ECALayer(20), eca), (lambda: ECALayer(20, kernel_size=5), eca), (lambda: ECALayer(20, 1), eca),
], ids=['se', 'se-1', 'cbam', 'cbam-3', 'eca', 'eca-5', 'eca-1'])
def test_equation(make, literal, make_random, assert_equal_in_value_and_gradient):
    layer = make_random(make().double())
    x = torch.randn(3, 20, 7, 5, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x),
                                       {'x': x, **dict(layer.named_parameters())})


@pytest.mark.parametrize(('channels', 'size'), [(1, 1), (8, 3), (16, 3), (64, 3), (128, 5), (256, 5), (512, 5),
                                                (1024, 5), (2048, 7)])
def test_kernel_size_of_eca(channels, size):
    """ψ(C) = |log2(C)/2 + 1/2| to the next odd number, as the authors' code rounds it."""
    assert ECALayer(channels).conv.weight.shape == (1, 1, size)


@pytest.mark.parametrize(('kind', 'shapes'), [
    ('DynConvSELayer', {'mlp.fc1.weight': (4, 64, 1, 1), 'mlp.fc2.weight': (64, 4, 1, 1)}),
    ('DynConvCBAM', {'mlp.fc1.weight': (4, 64, 1, 1), 'mlp.fc2.weight': (64, 4, 1, 1),
                     'spatial_conv.weight': (1, 2, 7, 7)}),
    ('DynConvECALayer', {'conv.weight': (1, 1, 3)}),
])
def test_as_plugin_of_mmcv(kind, shapes):
    name, layer = build_plugin_layer(dict(type=kind), postfix='_2', in_channels=64)
    assert name == {'DynConvSELayer': 'se_layer_2', 'DynConvCBAM': 'cbam_2', 'DynConvECALayer': 'eca_layer_2'}[kind]
    assert {key: tuple(tensor.shape) for key, tensor in layer.state_dict().items()} == shapes


def test_the_registry_has_room_for_the_same_names_of_others():
    for kind in LAYERS:
        assert MODELS.module_dict[f'DynConv{kind.__name__}'] is kind
        assert kind.__name__ not in MODELS.module_dict


@pytest.mark.parametrize('kind', LAYERS)
def test_any_batch_and_type(kind):
    layer = kind(8)
    assert layer(torch.randn(0, 8, 3, 4)).shape == (0, 8, 3, 4)
    x = torch.randn(1, 8, 5, 3)
    expected = layer.train()(x)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)),
                  torch.compile(layer, fullgraph=True, backend='aot_eager')):
        torch.testing.assert_close(other(x), expected)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), expected, rtol=.05, atol=.05)
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@given(st.sampled_from(LAYERS), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 5, 7]))
@settings(max_examples=40, deadline=None)
def test_valid_arguments_work(kind, channels, ratio, kernel_size):
    kwargs = {SELayer: dict(ratio=ratio), CBAM: dict(ratio=ratio, kernel_size=kernel_size),
              ECALayer: dict(kernel_size=kernel_size)}[kind]
    x = torch.randn(2, channels, 4, 3)
    assert kind(channels, **kwargs)(x).shape == x.shape


@pytest.mark.parametrize(('kind', 'name', 'value'), [
    *((kind, 'in_channels', value) for kind in LAYERS for value in (0, 2.5, True, None)),
    *((kind, 'ratio', value) for kind in (SELayer, CBAM) for value in (0, -1, 0.5, True)),
    *((kind, 'kernel_size', value) for kind in (CBAM, ECALayer) for value in (0, 2, 4, 3., '3', (3, 3))),
])
def test_bad_arguments_are_refused(kind, name, value):
    with pytest.raises(ValueError, match=f'^{name} must be'):
        kind(**{'in_channels': 8, name: value})

"""LocalRelation2d is the paper's equation, pixel by pixel."""
from __future__ import annotations

import pytest
import torch
from conv_layers import randomize
from local_attention import at, attend, conv1x1
from torch import Tensor

from dynconv_mm.layers import LocalRelation2d

SMALL = dict(in_channels=12, out_channels=12, kernel_size=3, group_channels=4)
OPTIONS = [
    dict(),
    dict(kernel_size=(3, 5), bias=False),
    dict(stride=2),
    dict(stride=(3, 2), kernel_size=5),
    dict(dilation=(2, 1)),
    dict(padding='same', group_channels=1),
    dict(padding=1, padding_mode='reflect'),
    dict(kernel_size=7, group_channels=12),
]


def make_layer(**options) -> LocalRelation2d:
    return randomize(LocalRelation2d(**{**SMALL, **options}).double())


def make_input(batch: int = 2) -> Tensor:
    return torch.randn(batch, 12, 5, 4, generator=torch.Generator().manual_seed(1)).double()


def literal(layer: LocalRelation2d, x: Tensor) -> Tensor:
    first, _, second = layer.geometry_prior.layers
    queries, keys = ([conv1x1(conv, sample) for sample in x] for conv in (layer.query, layer.key))

    def logits(b, row, column, i, j, h, w):
        offset = torch.tensor([i - layer.kernel_size[0] // 2, j - layer.kernel_size[1] // 2]).double()
        hidden = (first.weight[:, :, 0, 0] @ offset + first.bias).clamp(min=0)
        prior = second.weight[:, :, 0, 0] @ hidden + second.bias
        query, key = queries[b][:, row, column], at(keys[b], h, w)
        return (query * key if layer.similarity == 'product' else -(query - key).abs()) + prior

    sums = attend(layer, x, logits, layer.group_channels, layer.stride)
    y = torch.stack([conv1x1(layer.proj, sample) for sample in sums])
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.parametrize('similarity', ['absolute', 'product'])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equations(options, similarity, assert_equal_in_value_and_gradient):
    layer, x = make_layer(similarity=similarity, **options), make_input().requires_grad_()
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x),
                                       {'x': x, **dict(layer.named_parameters())})


def test_empty_batch_and_formats():
    layer = make_layer()
    assert layer(make_input(0)).shape == (0, 12, 5, 4)
    y = layer(make_input().to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(make_input()))


def test_structure():
    layer = LocalRelation2d(64, 64, bias=False)
    assert sum(parameter.numel() for parameter in layer.parameters()) == (
        2 * (64 * 8 + 8) + 2 * 4 + 4 + 4 * 8 + 8 + 64 * 64)
    assert layer.extra_repr() == ('64, 64, kernel_size=(7, 7), stride=(1, 1), padding=(3, 3), bias=False, '
                                  "group_channels=8, similarity='absolute'")


BAD = [('in_channels', (0, 8., None)), ('out_channels', (0, 24)), ('kernel_size', (2, (3, 4), 0, '3', True)),
       ('stride', (0, '2')), ('padding', (0, 2, (1, 2), 'full')), ('dilation', (0, )), ('groups', (2, 12, 0)),
       ('padding_mode', ('constant', )), ('group_channels', (5, 0, 2., True)), ('similarity', ('cosine', None))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        LocalRelation2d(**{**SMALL, name: value})

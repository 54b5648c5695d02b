"""StandAloneSelfAttention2d and its stem are the paper's equations, pixel by pixel."""
from __future__ import annotations

import pytest
import torch
from conv_layers import randomize
from local_attention import at, attend, conv1x1
from torch import Tensor

from dynconv_mm.layers import StandAloneSelfAttention2d
from dynconv_mm.layers.sasa import AttentionStem

SMALL = dict(in_channels=12, out_channels=12, kernel_size=3, heads=2)
OPTIONS = [
    dict(),
    dict(kernel_size=(3, 5), bias=False),
    dict(stride=2),
    dict(stride=(3, 2), kernel_size=5, heads=3),
    dict(dilation=(2, 1), heads=1),
    dict(padding='same', heads=6),
    dict(padding=1, padding_mode='reflect'),
]


def make_input(batch: int = 2, channels: int = 12, height: int = 5, width: int = 4) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1)).double()


def averages(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Over the pixels that there are, also in a last window that is not full."""
    return torch.stack([torch.stack([x[:, :, top:top + stride[0], left:left + stride[1]].mean((2, 3))
                                     for left in range(0, x.shape[3], stride[1])], 2)
                        for top in range(0, x.shape[2], stride[0])], 2)


def literal(layer: StandAloneSelfAttention2d, x: Tensor) -> Tensor:
    queries, keys, values = (torch.stack([conv1x1(conv, sample) for sample in x])
                             for conv in (layer.query, layer.key, layer.value))

    def logits(b, row, column, i, j, h, w):
        query = queries[b][:, row, column].view(layer.heads, -1)
        embedding = torch.cat([layer.embedding.rows[:, :, i], layer.embedding.columns[:, :, j]], 1)
        return (query * at(keys[b], h, w).view(layer.heads, -1)).sum(1) + (query * embedding).sum(1)

    y = averages(attend(layer, values, logits, x.shape[1] // layer.heads, (1, 1)), layer.stride)
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equations(options, assert_equal_in_value_and_gradient):
    layer, x = randomize(StandAloneSelfAttention2d(**{**SMALL, **options}).double()), make_input().requires_grad_()
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x),
                                       {'x': x, **dict(layer.named_parameters())})


def stem_literally(stem: AttentionStem, x: Tensor) -> Tensor:
    size, channels = stem.block_size, stem.out_channels // stem.heads
    height, width = (-(-side // size) * size for side in x.shape[2:])
    samples = []
    for sample in x:
        sample = torch.stack([torch.stack([sample[:, min(h, sample.shape[1] - 1), min(w, sample.shape[2] - 1)]
                                           for w in range(width)], 1) for h in range(height)], 1)
        query, key = conv1x1(stem.query, sample), conv1x1(stem.key, sample)
        mixed = conv1x1(stem.value, sample).view(stem.mixtures, stem.out_channels, height, width)
        rows = []
        for row in range(height):
            pixels = []
            for column in range(width):
                scores, values = [], []
                for a in range(size):
                    for b in range(size):
                        h, w = row // size * size + a, column // size * size + b
                        scores.append((query[:, row, column] * key[:, h, w]).view(stem.heads, channels).sum(1))
                        p = (stem.mixing @ (stem.rows[:, a] + stem.columns[:, b])).exp()
                        values.append(sum(p[m] / p.sum() * mixed[m, :, h, w] for m in range(stem.mixtures)))
                weights = torch.stack(scores).exp()
                weights = weights / weights.sum(0)
                pixels.append(sum(weight.repeat_interleave(channels) * value for weight, value in zip(weights, values)))
            rows.append(torch.stack(pixels, 1))
        samples.append(torch.stack(rows, 1))
    return torch.stack(samples)


@pytest.mark.parametrize(('height', 'width', 'block_size'), [(4, 8, 4), (7, 5, 4), (5, 4, 3)])
def test_stem(height, width, block_size, assert_equal_in_value_and_gradient):
    stem = randomize(AttentionStem(3, 12, block_size, heads=2, mixtures=5).double())
    x = make_input(2, 3, height, width).requires_grad_()
    assert_equal_in_value_and_gradient(lambda: stem(x), lambda: stem_literally(stem, x),
                                       {'x': x, **dict(stem.named_parameters())})


def test_empty_batch_and_formats():
    layer = randomize(StandAloneSelfAttention2d(**SMALL).double())
    assert layer(make_input(0)).shape == (0, 12, 5, 4)
    y = layer(make_input().to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(make_input()))


def test_structure():
    layer = StandAloneSelfAttention2d(64, 64, bias=False)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 3 * 64 * 64 + 7 * 64
    assert layer.extra_repr() == '64, 64, kernel_size=(7, 7), stride=(1, 1), padding=(3, 3), bias=False, heads=8'


def test_attention_is_not_saturated_at_first():
    torch.manual_seed(0)
    layer = StandAloneSelfAttention2d(128, 128)
    weights = layer.compute_kernels(torch.randn(1, 128, 9, 9))[0, :, :, :, 4, 4].flatten(1)
    torch.testing.assert_close(weights.sum(1), torch.ones(8))
    assert weights.max() < 0.9


BAD = [('in_channels', (0, 8., None)), ('out_channels', (0, 24)), ('kernel_size', (2, (3, 4), 0, '3', True)),
       ('stride', (0, '2')), ('padding', (0, 2, (1, 2), 'full')), ('dilation', (0, )), ('groups', (2, 12, 0)),
       ('padding_mode', ('constant', )), ('heads', (5, 4, 0, 2., True))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        StandAloneSelfAttention2d(**{**SMALL, name: value})


@pytest.mark.parametrize(('name', 'value'), [('in_channels', 0), ('out_channels', 12.), ('block_size', 0),
                                             ('heads', 5), ('mixtures', True)])
def test_bad_arguments_of_the_stem(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        AttentionStem(**{**dict(in_channels=3, out_channels=12, heads=2), name: value})

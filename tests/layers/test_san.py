"""PairwiseSelfAttention2d is SAN's equation, pixel by pixel."""
from __future__ import annotations

import pytest
import torch
from conv_layers import randomize
from local_attention import at, attend, conv1x1, window
from torch import Tensor, nn

from dynconv_mm.functional.local_attention import pad_reflected
from dynconv_mm.layers import PairwiseSelfAttention2d

SMALL = dict(in_channels=10, out_channels=12, kernel_size=3, group_channels=4, reduction=1 / 3)
OPTIONS = [
    dict(),
    dict(kernel_size=(3, 5), bias=False),
    dict(stride=2),
    dict(stride=(3, 2), kernel_size=5),
    dict(dilation=(2, 1)),
    dict(padding=1, norm_cfg=None),
    dict(padding='same', group_channels=1),
    dict(padding_mode='zeros'),
    dict(kernel_size=7, dilation=2),  # a map smaller than its padding
]


def make_layer(**options) -> PairwiseSelfAttention2d:
    return randomize(PairwiseSelfAttention2d(**{**SMALL, **options}).double(), seed=1)


def make_input(batch: int = 2) -> Tensor:
    return torch.randn(batch, 10, 5, 4, generator=torch.Generator().manual_seed(1)).double()


def normalised(norm: nn.Module, pairs: Tensor, training: bool) -> Tensor:
    """Of all pairs, Tensor[pairs, channels]."""
    if isinstance(norm, nn.Identity):
        return pairs
    mean, var = norm.running_mean, norm.running_var
    if training:
        mean, var = pairs.mean(0), pairs.var(0, correction=0)
    return (pairs - mean) / torch.sqrt(var + 1e-5) * norm.weight + norm.bias


def literal(layer: PairwiseSelfAttention2d, x: Tensor, training: bool) -> Tensor:
    height, width = x.shape[2:]
    grid = torch.tensor([[[-1 + 2 * w / (width - 1) for w in range(width)] for h in range(height)],
                         [[-1 + 2 * h / (height - 1) for w in range(width)] for h in range(height)]], dtype=x.dtype)
    position = conv1x1(layer.conv_p, grid)
    relations, names = [], {}
    for b, sample in enumerate(x):
        query, key = conv1x1(layer.conv1, sample), conv1x1(layer.conv2, sample)
        for row in range(0, height, layer.stride[0]):
            for column in range(0, width, layer.stride[1]):
                for i, j, h, w in window(layer, height, width, row, column):
                    names[b, row, column, i, j] = len(relations)
                    relations.append(torch.cat([query[:, row, column] - at(key, h, w),
                                                position[:, row, column] - at(position, h, w)]))
    norm1, _, conv1, norm2, _, conv2 = layer.conv_w
    hidden = normalised(norm1, torch.stack(relations), training).clamp(min=0) @ conv1.weight[:, :, 0, 0].T
    logits = normalised(norm2, hidden, training).clamp(min=0) @ conv2.weight[:, :, 0, 0].T + conv2.bias
    values = torch.stack([conv1x1(layer.conv3, sample) for sample in x])
    y = attend(layer, values, lambda b, row, column, i, j, h, w: logits[names[b, row, column, i, j]],
               layer.group_channels, layer.stride)
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equations(options, training, assert_equal_in_value_and_gradient):
    layer, x = make_layer(**options).train(training), make_input().requires_grad_()
    inputs = {'x': x, **dict(layer.named_parameters())}
    inputs.pop('conv_p.bias')  # which differences are free of
    assert_equal_in_value_and_gradient(lambda: layer(x), lambda: literal(layer, x, training), inputs)


def test_reflection():
    x = torch.arange(6.).view(1, 1, 2, 3)
    assert torch.equal(pad_reflected(x, (1, 2)), nn.functional.pad(x, (2, 2, 1, 1), mode='reflect'))
    assert pad_reflected(x, (3, 4))[0, 0, :, 4].tolist() == [3, 0, 3, 0, 3, 0, 3, 0]
    assert pad_reflected(x, (3, 4))[0, 0, 3].tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert pad_reflected(x[:, :, :1, :1], (2, 1)).tolist() == torch.zeros(1, 1, 5, 3).tolist()


def test_empty_batch_and_formats():
    layer = make_layer().eval()
    assert layer(make_input(0)).shape == (0, 12, 5, 4)
    y = layer(make_input().to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(make_input()))


def test_names_of_the_released_module():
    layer = PairwiseSelfAttention2d(64, 16, bias=False)
    assert list(layer.state_dict()) == [
        *(f'conv{name}.{kind}' for name in ('1', '2', '3', '_p') for kind in ('weight', 'bias')),
        *(f'conv_w.{name}' for name in (
            *(f'0.{kind}' for kind in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')),
            '2.weight',
            *(f'3.{kind}' for kind in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')),
            '5.weight', '5.bias'))]
    assert layer.extra_repr() == ('64, 16, kernel_size=(7, 7), stride=(1, 1), padding=(3, 3), '
                                  "padding_mode='reflect', bias=False, group_channels=8")


BAD = [('in_channels', (0, 8., None)), ('out_channels', (0, 10.)), ('kernel_size', (2, (3, 4), 0, '3', True)),
       ('stride', (0, '2')), ('padding', (0, 2, (1, 2), 'full')), ('dilation', (0, )), ('groups', (2, 0)),
       ('padding_mode', ('constant', )), ('group_channels', (5, 0, 2., True)),
       ('reduction', (0, 2, '1/4', True, 1 / 100)), ('norm_cfg', ('BN', dict()))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        PairwiseSelfAttention2d(**{**SMALL, name: value})

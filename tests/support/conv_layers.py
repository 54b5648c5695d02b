"""A small layer of each kind of convolution, all with the same arguments of ``torch.nn.Conv2d``."""
from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from dynconv_mm.layers import (
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DDFConv2d,
    DyConv2d,
    FDConv2d,
    Involution2d,
    KWConv2d,
    LocalRelation2d,
    LSConv2d,
    ODConv2d,
    PairwiseSelfAttention2d,
    StandAloneSelfAttention2d,
    WEConv2d,
    WeightNetConv2d,
)

CHANNELS = 8


def ddf(kernel_size: int = 3, padding: int = 1, **arguments) -> DDFConv2d:
    """A DDF, which has no kernels of one element: 3×3 in their place."""
    if kernel_size == 1:
        kernel_size, padding = 3, 1
    return DDFConv2d(kernel_size=kernel_size, padding=padding, **arguments)


def ls(stride: int = 1, **arguments) -> LSConv2d:
    """An LSConv2d, which has no stride."""
    return LSConv2d(**arguments)


#: by name, what builds it of a Conv2d's arguments
LAYERS = {
    'ODConv2d 1x': partial(ODConv2d, kernel_num=1),
    'ODConv2d 4x': partial(ODConv2d, kernel_num=4),
    'ODConv2d 4x, own attentions': partial(ODConv2d, kernel_num=4, share_attention=False),
    'DyConv2d': DyConv2d,
    'CondConv2d': partial(CondConv2d, kernel_num=3),
    'DCDConv2d': partial(DCDConv2d, squeeze_ratio=4),
    'Involution2d': partial(Involution2d, group_channels=4),
    'DCDC2d': partial(DCDC2d, group_channels=4),
    'CGConv2d': partial(CGConv2d, group_channels=4),
    'WeightNetConv2d': partial(WeightNetConv2d, multiplier=4),
    'DDFConv2d': partial(ddf, heads=2),
    'DDFConv2d add': partial(ddf, combine='add'),
    'PairwiseSelfAttention2d': partial(PairwiseSelfAttention2d, group_channels=2, reduction=1 / 2),
    'LocalRelation2d': partial(LocalRelation2d, group_channels=2),
    'StandAloneSelfAttention2d': partial(StandAloneSelfAttention2d, heads=2),
    'WEConv2d': partial(WEConv2d, reduction=1 / 2),
    'KWConv2d': partial(KWConv2d, cell_num_ratio=1 / 2, cell_in_ratio=1 / 2, temperature=.25),
    'FDConv2d': partial(FDConv2d, kernel_num=5, static_channels=4),
    'LSConv2d': partial(ls, group_channels=4, large_kernel_size=5),
}
ODCONVS = [name for name in LAYERS if name.startswith('ODConv2d')]


def make_layer(name: str, **arguments) -> nn.Module:
    """A layer of :data:`LAYERS` from 8 to 8 channels, with random weights and statistics, none of them 0 or 1."""
    options = dict(in_channels=CHANNELS, out_channels=CHANNELS, kernel_size=3, padding=1)
    return randomize(LAYERS[name](**{**options, **arguments}))


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Parameters and running statistics by a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)  # so that few ReLUs put out nothing
        for name, buffer in module.named_buffers():
            if name.endswith(('running_mean', 'running_var')):
                buffer.uniform_(0.5, 1.5, generator=generator)
    return module


def make_features(batch: int = 2, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Tensor[batch, 8, 9, 7]"""
    return torch.randn(batch, CHANNELS, 9, 7, generator=torch.Generator().manual_seed(seed)).to(dtype)

"""Images of a pixel, long and narrow ones, none at all, and in double precision."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from thin_networks import BACKBONES, settle

from dynconv_mm.layers import (
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DyConv2d,
    FDConv2d,
    Involution2d,
    KWConv2d,
    ODConv2d,
    WEConv2d,
    WeightNetConv2d,
)

LAYERS = (ODConv2d, DyConv2d, CondConv2d, DCDConv2d, Involution2d, DCDC2d, CGConv2d, WeightNetConv2d, WEConv2d,
          KWConv2d, partial(FDConv2d, static_channels=8))
SIZES = [(1, 1), (1, 2), (2000, 30), (30, 2000)]  # height, width


@pytest.fixture(params=BACKBONES)
def name(request) -> str:
    return request.param


@pytest.fixture(params=SIZES, ids=str)
def size(request) -> tuple[int, int]:
    return request.param


@pytest.mark.one_at_a_time('kind', 'training', 'size')
@pytest.mark.parametrize('kind', LAYERS)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'training'])
@pytest.mark.filterwarnings('ignore:An attention got a single sample')
def test_layers(count, kind, training, size):
    torch.manual_seed(0)
    layer = kind(16, 16, 3, padding=1).train(training)
    for batch in (1, 2):
        x = torch.randn(batch, 16, *size, requires_grad=True)
        if kind in (Involution2d, DCDC2d) and training and batch * size[0] * size[1] == 1:
            continue  # a norm over a map of one pixel, which torch refuses as it does in any network
        count('maps of odd sizes through layers')
        y = layer(x)
        assert y.shape == x.shape and y.isfinite().all()
        y.square().sum().backward()
        assert x.grad.isfinite().all()


@pytest.mark.one_at_a_time('name', 'size')
def test_backbones(count, name, size):
    if name == 'SAN' and min(size) < 32:
        with pytest.raises(RuntimeError, match='Output size is too small'):  # pooled by 2 five times
            BACKBONES[name]()(torch.randn(2, 3, *size))
        size = tuple(max(length, 32) for length in size)
    model = settle(BACKBONES[name](out_indices=(0, 2)).double(), size, least_variance=.1)
    count('images of odd sizes through backbones')
    with torch.no_grad():
        for y in model(torch.randn(2, 3, *size).double()):
            assert y.isfinite().all() and len(y) == 2 and y.numel()


def test_no_images(count, name):
    model = settle(BACKBONES[name]())
    full, = model(torch.randn(1, 3, 64, 48))
    count('empty batches through backbones')
    empty, = model(torch.randn(0, 3, 64, 48))
    assert empty.shape == (0, *full.shape[1:])


def test_double_precision(count, name):
    """As in single precision, but for its rounding."""
    model = settle(BACKBONES[name]())
    image = torch.randn(2, 3, 48, 40)
    single, = model(image)
    count('images in double precision through backbones')
    double, = model.double()(image.double())
    assert double.dtype == torch.float64
    assert (double - single).abs().max() <= 1e-3 * double.abs().max()

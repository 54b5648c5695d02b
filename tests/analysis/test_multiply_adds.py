"""Multiply-adds: the well-known figures of static networks, and the papers' equations for each dynamic layer."""
from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from dynconv_mm import (
    CBAM,
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DDFConv2d,
    DyConv2d,
    ECALayer,
    FDConv2d,
    Involution2d,
    KWConv2d,
    LocalRelation2d,
    LSConv2d,
    ODConv2d,
    PairwiseSelfAttention2d,
    SELayer,
    StandAloneSelfAttention2d,
    WEConv2d,
    WeightNetConv2d,
    build_warehouses,
)
from dynconv_mm.analysis import count_madds
from dynconv_mm.analysis.multiply_adds import KINDS, count_by_layer
from dynconv_mm.layers.condconv import CondConvLinear, CondConvRouting
from dynconv_mm.layers.conv_arguments import ConvArguments
from dynconv_mm.layers.sasa import AttentionStem
from dynconv_mm.layers.weightnet import WeightNetReduction
from dynconv_mm.models import ODConvResNet
from dynconv_mm.models.backbones import MobileNetV2, ResNet


class Classifier(nn.Module):

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.fc = backbone, nn.Linear(backbone.feat_dim, 1000)

    def forward(self, x):
        return self.fc(self.backbone(x)[-1].mean((2, 3)))


@pytest.mark.parametrize(('network', 'kwargs', 'millions'), [
    (ResNet, dict(depth=18), 1814.1), (ResNet, dict(depth=50, style='caffe'), 3858.0),
    (ResNet, dict(depth=50), 4089.2), (ResNet, dict(depth=101, style='caffe'), 7570.2),
    *((MobileNetV2, dict(widen_factor=width), millions) for width, millions in ((1., 300.8), (.75, 209.1), (.5, 97.1))),
])
def test_static_networks(network, kwargs, millions):
    with torch.device('meta'):
        model = Classifier(network(**kwargs))
    assert round(count_madds(model) / 1e6, 1) == millions


# Layers 12 → 20 with 3×3 kernels on a map of 10×9, which stride 2 makes 5×5.

C_IN, C_OUT, K2, AREA, OUT_AREA = 12, 20, 9, 90, 25
CONV = OUT_AREA * K2 * C_IN * C_OUT
SHAPE = dict(in_channels=C_IN, out_channels=C_OUT, kernel_size=3, stride=2, padding=1)


def count(layer: nn.Module, in_channels: int = C_IN) -> int:
    return count_madds(layer, (10, 9), in_channels)


@pytest.mark.parametrize('kernel_num', [1, 4])
def test_odconv(kernel_num):
    hidden = 16
    heads = C_IN + C_OUT + K2 + (kernel_num if kernel_num > 1 else 0)
    extra = AREA * C_IN + hidden * (C_IN + heads)  # Eq. 3 and 4
    extra += K2 * C_IN * (1 + 2 * C_OUT) if kernel_num == 1 else K2 * C_IN * (1 + C_OUT + 2 * kernel_num * C_OUT)
    assert count(ODConv2d(**SHAPE, kernel_num=kernel_num)) == CONV + extra


@pytest.mark.parametrize(('attentions', 'factors'), [
    (('spatial', ), K2 * C_IN * C_OUT), (('filter', ), K2 * C_IN * C_OUT),
    (('spatial', 'channel'), K2 * C_IN + K2 * C_IN * C_OUT), (('channel', 'filter'), C_IN * C_OUT * (1 + K2)),
    (('channel', 'kernel'), 2 * 4 * K2 * C_IN * C_OUT), (('kernel', ), 4 * K2 * C_IN * C_OUT),
], ids=str)
def test_odconv_with_some_attentions(attentions, factors):
    """They are multiplied with each other, then with the kernels: products of those that are left out do not count."""
    lengths = dict(spatial=K2, channel=C_IN, filter=C_OUT, kernel=4)
    layer = ODConv2d(**SHAPE, kernel_num=4 if 'kernel' in attentions else 1, attentions=attentions)
    attention = AREA * C_IN + 16 * (C_IN + sum(lengths[name] for name in attentions))
    assert count_by_layer(layer, lambda: layer(torch.zeros(1, C_IN, 10, 9))) == {
        '': dict(dynamic_conv=CONV, attention=attention, mixing=factors)}


def test_odconv_without_sharing():
    layer = ODConv2d(**SHAPE, share_attention=False)
    attention = AREA * C_IN + 16 * (C_IN + 4 * (C_IN + C_OUT + K2) + 4)
    assert count(layer) == CONV + attention + 4 * K2 * C_IN * (1 + C_OUT) + 2 * 4 * K2 * C_IN * C_OUT


def test_odconv_without_attention():
    assert count(ODConv2d(**SHAPE, kernel_num=1, attentions=())) == CONV


def test_dyconv():
    hidden, kernel_num = 3, 4  # ⌊12 / 4⌋
    attention = AREA * C_IN + C_IN * hidden + hidden * kernel_num
    assert count(DyConv2d(**SHAPE)) == CONV + attention + kernel_num * K2 * C_IN * C_OUT


def test_condconv():
    kernel_num, kernels = 8, 8 * K2 * C_IN * C_OUT
    attention = AREA * C_IN + C_IN * kernel_num
    assert count(CondConv2d(**SHAPE)) == CONV + attention + kernels
    assert count(RoutedConvs()) == 2 * (CONV + kernels) + attention


class RoutedConvs(nn.Module):
    """Two convolutions of the same features that share their routing."""

    def __init__(self) -> None:
        super().__init__()
        self.routing = CondConvRouting(C_IN, 8)
        self.convs = nn.ModuleList(CondConv2d(**SHAPE, routing=False) for _ in range(2))

    def forward(self, x):
        weights = self.routing(x)
        return [conv(x, weights) for conv in self.convs]


@pytest.mark.parametrize('layer', [DyConv2d, CondConv2d, partial(CondConv2d, routing=False)])
def test_without_attention(layer):
    """The sum of the kernels is one kernel, which no image changes."""
    assert count(layer(**SHAPE, attention=False)) == CONV
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          CondConvLinear(16, 10, 5, attention=False))
    assert count_madds(model, (8, 8)) == 8 * 8 * 3 * 16 + 16 * 10


def test_the_classifier_of_condconv():
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), CondConvLinear(16, 10, 5))
    routing = 16 * 5  # of features that are averages already
    assert count_madds(model, (4, 4)) == 16 * 3 * 16 + routing + 5 * 160 + 160


PAPER = dict(variant='paper', squeeze_ratio=4)
HIDDEN, RANK = 3, 6  # ⌊12 / 4⌋, 12 / 2^⌊log₂ √12⌋
BRANCH = AREA * C_IN + C_IN * HIDDEN


@pytest.mark.parametrize(('options', 'extra'), [
    (dict(fusion=None, channel_attention=False), 0),
    (dict(fusion=None), BRANCH + HIDDEN * C_OUT + OUT_AREA * C_OUT),
    (dict(channel_attention=False),
     BRANCH + HIDDEN * RANK**2 + RANK**2 * C_IN + RANK * C_IN * C_OUT),  # as a kernel: 1872, on features: 5232
    (dict(), BRANCH + HIDDEN * (C_OUT + RANK**2) + OUT_AREA * C_OUT + RANK**2 * C_IN + RANK * C_IN * C_OUT),
    (dict(channel_attention=False, blocks=2),  # two blocks of 6 → 10 with L = 3
     BRANCH + HIDDEN * 2 * 9 + 2 * (9 * 6 + 3 * 6 * 10)),
    (dict(channel_attention=False, fusion='joint'),  # L_k = 4, L = 12 / L_k
     BRANCH + HIDDEN * 3 * 3 * 4 + min(C_IN * (36 + C_OUT * 4 * (3 + K2)),
                                      3 * C_IN * AREA + OUT_AREA * (3 * 4 * K2 + 36 + 3 * C_OUT))),
], ids=str)
def test_dcd(options, extra):
    assert count(DCDConv2d(**SHAPE, **PAPER, **options)) == CONV + extra


def test_dcd_on_few_pixels_is_counted_on_features():
    layer = DCDConv2d(C_IN, C_OUT, 1, channel_attention=False, **PAPER)
    assert count_madds(layer, (1, 2), C_IN) == (2 * C_IN * C_OUT + 2 * C_IN + C_IN * HIDDEN + HIDDEN * RANK**2
                                                + 2 * RANK**2 + 2 * RANK * (C_IN + C_OUT))


def test_depthwise_dcd():
    layer = DCDConv2d(8, 8, 3, padding=1, groups=8, **PAPER)
    assert count(layer, 8) == (AREA * K2 * 8 + AREA * 8 + 8 * 2 + 2 * (8 + 16) + K2 * 8
                               + 4 * 4 * 8 + 8 * 4 * K2)  # W₀ has 72 weights, fewer than the map


def test_the_classifier_of_dcd():
    pytest.importorskip('mmpretrain')
    from dynconv_mm.models import DCDLinearClsHead
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), DCDLinearClsHead(10, 16))
    model[-1].forward = lambda x, forward=model[-1].forward: forward((x, ))
    expected = 10 * 16 + 16 * 32 + 32 * 32 + 32 * 10 + 32 * 32**2 + 32 * (16 + 10) + 32**2 + 10
    assert count_madds(model, (4, 4)) == 16 * 3 * 16 + expected


# 64 channels on a map of 10×9, which stride 2 makes 5×5; one kernel for 16 channels.

PREDICT = 64 * 16 + 16 * 49 * 4  # α = 1 / 4, k = 7


@pytest.mark.parametrize(('stride', 'area'), [(1, AREA), (2, OUT_AREA)])
def test_involution(stride, area):
    """Each output position predicts 4 kernels of 49 elements; each output is a product with one of them."""
    assert count(Involution2d(64, 64, stride=stride), 64) == area * (PREDICT + 64 * 49)


C_GSI, K2_GSI = 8, 9  # √64
LSA = OUT_AREA * (64 * 9 + 16 * 9 + PREDICT + 64 * 49)  # depthwise 3×3 before each 1×1
GSI = AREA * 64 * C_GSI + C_GSI * C_GSI**2 * K2_GSI + OUT_AREA * (C_GSI**2 * K2_GSI + C_GSI * 64)


@pytest.mark.parametrize(('options', 'expected'), [
    (dict(), LSA + GSI),
    (dict(gsi='none'), LSA),
    (dict(gsi='conv_small'), LSA + GSI - C_GSI**3 * K2_GSI),  # no FC
    (dict(gsi='conv_large'), LSA + OUT_AREA * 64 * 64 * 9),
    (dict(gsi='none', lsa_dw_kernel_size=None), LSA - OUT_AREA * (64 + 16) * 9),
], ids=str)
def test_dcdc(options, expected):
    assert count(DCDC2d(64, 64, stride=2, gsi_kernel_size=3, **options), 64) == expected


@pytest.mark.parametrize(('layer', 'expected'), [
    (SELayer(64), 2 * 64 * AREA + 2 * 64 * 4),  # averages, scaling; ratio 16
    (CBAM(64), 4 * 64 * AREA + 4 * 64 * 4 + AREA * 2 * 49),  # averages over places and channels, two scalings
    (ECALayer(64), 2 * 64 * AREA + 64 * 3),
], ids=['SE', 'CBAM', 'ECA'])
def test_feature_attention(layer, expected):
    assert count(layer, 64) == expected


def test_context_gating():
    """5 numbers of each channel's context; 2 groups of 6 input and 10 output channels."""
    context, per_channel, joined = 5 * K2 * C_IN, 5 * K2 * (C_IN + C_OUT), 5 * 6 * C_OUT
    attention = AREA * C_IN + context + per_channel + joined
    assert count(CGConv2d(**SHAPE, group_channels=6)) == CONV + attention + K2 * C_IN * C_OUT


def test_kernel_warehouse():
    """K² · 3 parts, and half as many cells; with bases each part combines them."""
    parts, cells = 3 * K2, 3 * K2 // 2
    own = AREA * C_IN + C_IN * 16
    options = dict(SHAPE, cell_num_ratio=1 / 2, cell_in_ratio=1 / 3)
    mixing = parts * cells * C_IN // 3 * C_OUT
    assert count(KWConv2d(**options)) == CONV + own + 16 * parts * (cells + 1) + mixing
    model = nn.Sequential(KWConv2d(**SHAPE, warehouse='a'), KWConv2d(C_OUT, C_OUT, 1, warehouse='a',
                                                                     nonlocal_basis_ratio=1 / 2))
    build_warehouses(model)
    (n, cell_out, cell_in, *_), layer = model[0].cells.shape, model[1]
    counted = count_by_layer(model, lambda: model(torch.zeros(1, C_IN, 10, 9)))
    m, own = C_OUT // cell_out * (C_OUT // cell_in), layer.share.stop - layer.share.start
    area = counted['1']['dynamic_conv'] // C_OUT**2
    assert counted['1'] == dict(dynamic_conv=area * C_OUT**2, mixing=m * n * cell_out * cell_in,
                                attention=area * C_OUT + 16 * C_OUT + 16 * m * (own + 17) + m * 16 * (n - own))
    assert counted['warehouse_manager'] == {}


def test_weightnet():
    """M = 4, G = 2: two learned kernels."""
    layer = dict(SHAPE, multiplier=4)
    own, fc, kernels = AREA * C_IN + C_IN * 16, 16 * 4 * C_OUT, 2 * K2 * C_IN * C_OUT
    assert count(WeightNetConv2d(**layer)) == CONV + own + fc + kernels
    model = nn.ModuleDict(dict(reduction=WeightNetReduction(C_IN, 16), conv=WeightNetConv2d(**layer, routing=False)))
    x = torch.zeros(1, C_IN, 10, 9)
    assert count_by_layer(model, lambda: model.conv(x, model.reduction(x))) == {
        'reduction': dict(attention=own), 'conv': dict(dynamic_conv=CONV, attention=fc, mixing=kernels)}


def test_fdconv():
    """Averages, FCs of 16, a local attention of 5 taps, a transform of N numbers by N log₂ N, a product for each of
    five attentions, and bands."""
    kernel = 9 * 64 * 32
    local = 9 * 32 * 5 * 64
    fcs = 16 * (64 + 64 + 32 + 9 + 8)
    transform = round(96 * 192 * math.log2(96 * 192))
    bands = 3 * 90 * 9 * 64 + 64 * 4 * round(90 * math.log2(90)) + 3 * 64 * 90
    layer = FDConv2d(64, 32, 3, padding=1, kernel_num=8)
    assert count(layer, 64) == 90 * kernel + 64 * 90 + fcs + local + transform + 5 * kernel + bands
    assert count(FDConv2d(16, 32, 3, padding=1), 16) == 90 * 9 * 16 * 32


def test_lsconv():
    predict = 64 * 32 + 32 * 49 + 32 * 32 + 32 * 72
    assert count(LSConv2d(64, 64), 64) == 90 * (predict + 64 * 9)


@pytest.mark.parametrize('combine', ['mul', 'add'])
def test_ddf(combine):
    predict = OUT_AREA * 64 * 2 * K2 + AREA * 64 + 64 * 12 + 12 * 64 * K2
    assert count(DDFConv2d(64, 64, stride=2, heads=2, combine=combine), 64) == predict + 2 * OUT_AREA * 64 * K2


def test_pairwise_self_attention():
    """Pairs of 4 + 2 channels, to 4 and to 2 weights."""
    once = OUT_AREA * 64 * 4 + AREA * (64 * 4 + 2 * 2 + 64 * 16)
    pairs = OUT_AREA * K2 * (6 * 4 + 4 * 2 + 16)
    assert count(PairwiseSelfAttention2d(64, 16, 3, stride=2), 64) == once + pairs


def test_local_relation():
    """8 scalars, and a prior of 4 channels inside."""
    scalars = OUT_AREA * 64 * 8 + AREA * 64 * 8 + K2 * (2 * 4 + 4 * 8)
    assert count(LocalRelation2d(64, 64, 3, stride=2), 64) == scalars + OUT_AREA * (K2 * (8 + 64) + 64 * 64)


def test_stand_alone_self_attention():
    assert count(StandAloneSelfAttention2d(64, 64, 3, stride=2), 64) == AREA * 64 * (3 * 64 + 3 + 2 * K2)
    stem = AttentionStem(3, 64)
    assert count_madds(stem, (7, 8)) == 64 * 64 * (6 * 3 + 4 + 2 * 16)


def test_weight_excitation():
    """Folded."""
    assert count(WEConv2d(**SHAPE)) == CONV


def test_static_layers():
    assert count(nn.ConvTranspose2d(C_IN, C_OUT, 3, 2, groups=4)) == AREA * K2 * C_IN * C_OUT // 4
    assert count(nn.Conv2d(C_IN, C_OUT, (1, 5), groups=2)) == 10 * 5 * 5 * C_IN * C_OUT // 2
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 3))
    assert count_by_layer(model, lambda: model(torch.tensor([1, 2]))) == {'0': {}, '1': dict(linear=2 * 15)}


def test_deformable_convolutions_count_as_convolutions_with_their_offsets():
    deform = pytest.importorskip('mmcv.ops')
    packed = deform.ModulatedDeformConv2dPack(C_IN, C_OUT, 3, stride=2, padding=1)
    assert count(packed) == CONV + OUT_AREA * K2 * C_IN * 27
    assert count(deform.DeformConv2dPack(C_IN, C_OUT, 3, stride=2, padding=1)) == CONV + OUT_AREA * K2 * C_IN * 18


def test_layers_by_name_and_kind():
    model = nn.Sequential(nn.Conv2d(C_IN, C_IN, 1), nn.Sequential(nn.ReLU(), DyConv2d(**SHAPE)))
    twice = model[0]
    found = count_by_layer(model, lambda: model(twice(torch.zeros(1, C_IN, 10, 9))))
    assert found == {'0': dict(conv=2 * AREA * C_IN**2),
                     '1.1': dict(dynamic_conv=CONV, mixing=4 * K2 * C_IN * C_OUT, attention=AREA * C_IN + 36 + 12)}
    assert all(set(kinds) <= set(KINDS) for kinds in found.values())


def test_a_layer_of_two_names_counts_as_often_as_it_runs():
    conv = nn.Conv2d(C_IN, C_IN, 1)
    assert count(nn.Sequential(conv, conv)) == 2 * AREA * C_IN**2


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match='multiply-adds of MultiheadAttention are not known: add a handler'):
        count(nn.MultiheadAttention(8, 2))


def test_the_model_is_left_as_it_was():
    model = ODConvResNet(depth=18, kernel_num=1, stem_channels=8, base_channels=8, norm_eval=True).train()
    modes = [module.training for module in model.modules()]
    assert count_madds(model, (64, 64)) == count_madds(model, (64, 64))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())


def test_unknown_dynamic_layers_are_refused():

    class NewConv2d(ConvArguments):
        pass

    with pytest.raises(ValueError, match='multiply-adds of NewConv2d are not known'):
        count(nn.Sequential(NewConv2d()))

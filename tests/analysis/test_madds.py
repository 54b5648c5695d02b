"""Multiply-adds: the well-known figures of static networks, and the papers' equations for each dynamic layer."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from dynconv_mm.analysis import count_madds
from dynconv_mm.analysis.madds import HANDLERS
from dynconv_mm.layers import DCDConv2d, ODConv2d
from dynconv_mm.layers.conv_arguments import ConvArguments
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


def test_odconv_without_attention():
    assert count(ODConv2d(**SHAPE, kernel_num=1, attentions=())) == CONV


class DyConv2d(nn.Conv2d):
    """As the layer of this name counts: four kernels, and a softmax attention of its own."""

    def __init__(self) -> None:
        super().__init__(**SHAPE)
        self.kernel_num = 4
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C_IN, 3), nn.Linear(3, 4))

    def forward(self, x):
        return super().forward(x) + self.attention(x).sum()


def test_mixtures_of_kernels():
    expected = CONV + AREA * C_IN + C_IN * 3 + 3 * 4 + 4 * K2 * C_IN * C_OUT
    assert count(DyConv2d()) == expected
    assert HANDLERS['CondConv2d'] is HANDLERS['DyConv2d']


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

"""Others' counters of operations run on the layers and networks, and count what can be expected of them.

They count recorded operations: the norms, which the papers leave out, but no product of elements, such as those by
which attentions are multiplied with kernels and involution applies its kernels.
"""
from __future__ import annotations

from collections import Counter

import pytest
import torch
from conv_layers import LAYERS, make_features, make_layer
from mmengine.analysis import FlopAnalyzer, get_model_complexity_info
from thin_networks import BACKBONES
from torch import Tensor, nn

from dynconv_mm.analysis.multiply_adds import count_by_layer

#: what mmengine counts, norms aside, as a share of our count: at least and at most
SHARES = {
    'ODConv': (0.79, 1), 'DyConv': (1, 1), 'CondConv': (1, 1), 'DCD': (1, 1.25), 'Involution': (0.4, 1),
    'RedNet': (0.8, 1), 'DCDC2d': (0.4, 1), 'DCDCResNet': (0.8, 1),
    'DwCondConv': (0.8, 1), 'DwWeightNet': (0.8, 1), 'WeightNet': (0.8, 1),
    'DDFConv2d': (0.3, 1.5), 'DDFResNet': (0.8, 1), 'PairwiseSelfAttention2d': (0.5, 1), 'LocalRelation2d': (0.2, 1),
    'StandAloneSelfAttention2d': (0.3, 1), 'LRNet': (0.7, 1), 'SAResNet': (0.6, 1), 'SAN': (0.6, 1),
    'KW': (0.8, 1.1), 'FDConv': (0.8, 1.5), 'LSConv2d': (0.5, 1.1),  # a recorded transform is products of matrices
    'CGC': (0.9, 1), 'CGConv2d': (0.8, 1), 'WE': (1, 2),  # whose FCs cost nothing once it is folded
}


RESNETS = [name if name == 'ODConvResNet' else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES
           if not name.endswith('MobileNetV2')]


def two_stages(name: str) -> nn.Module:
    return BACKBONES[name](num_stages=2, out_indices=(1, )).eval()


@pytest.fixture(params=[*LAYERS, *RESNETS])
def case(request) -> tuple[nn.Module, Tensor, tuple[float, float]]:
    """A model, what it takes, and the share."""
    name = request.param
    share = next(share for prefix, share in reversed(SHARES.items()) if name.startswith(prefix))
    if name in LAYERS:
        return make_layer(name).eval(), make_features(1), share
    return two_stages(name), torch.randn(1, 3, 32, 32), share


def our_count(model: nn.Module, x: Tensor) -> int:
    return sum(sum(count.values()) for count in count_by_layer(model, lambda: model(x)).values())


def test_mmengine(case):
    model, x, (least, most) = case
    info = get_model_complexity_info(model, inputs=x, show_table=False, show_arch=False)
    assert info['params'] == sum(parameter.numel() for parameter in model.parameters())
    norms = FlopAnalyzer(model, (x, )).by_operator().get('batch_norm', 0)
    assert least <= (info['flops'] - norms) / our_count(model, x) <= most


def test_mmengine_by_a_shape():
    """As mmdet's and mmpretrain's ``get_flops``; what it counts does not depend on the gradient mode."""
    model = two_stages('ODConvResNet')
    flops = get_model_complexity_info(model, (3, 64, 64), show_table=False, show_arch=False)['flops']
    with torch.no_grad():
        assert get_model_complexity_info(model, (3, 64, 64), show_table=False, show_arch=False)['flops'] == flops
    assert FlopAnalyzer(model, (torch.randn(1, 3, 64, 64), )).by_module()['layer1.0.conv1'] > 0


def test_fvcore(layer):
    """It counts as mmengine does, which took over its code."""
    counter = pytest.importorskip('fvcore.nn').FlopCountAnalysis
    x = make_features(1)
    counted: Counter[str] = counter(layer, x).unsupported_ops_warnings(False).uncalled_modules_warnings(
        False).by_operator()
    assert counted == FlopAnalyzer(layer, (x, )).by_operator()

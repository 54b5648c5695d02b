"""SAN, LR-Net and SA-ResNet have their attentions in the papers' places, and the parameters of DCDC's Table I."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from dynconv_mm.analysis import count_madds
from dynconv_mm.layers import LocalRelation2d, PairwiseSelfAttention2d, StandAloneSelfAttention2d
from dynconv_mm.layers.sasa import AttentionStem
from dynconv_mm.models import SAN, LRNet, SAResNet

THIN = dict(depth=26, stem_channels=16, base_channels=8, kernel_size=3)
NETWORKS = {
    'SAN': partial(SAN, depth=10, base_channels=32, kernel_size=5),
    'LRNet': partial(LRNet, **THIN),
    'SAResNet': partial(SAResNet, heads=4, **THIN),
}
# of the maps but SAN's first: strides 4 to 32
CHANNELS = {'SAN': (128, 256, 512, 1024), 'LRNet': (32, 64, 128, 256), 'SAResNet': (32, 64, 128, 256)}


@pytest.fixture(params=NETWORKS)
def name(request) -> str:
    return request.param


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters()) + 1000 * model.feat_dim + 1000


# as printed, and as built: where the printed figure is not that, docs/paper_tables.md says why
@pytest.mark.parametrize(('network', 'depth', 'printed', 'built'), [
    (SAN, 10, '10.5', '10.5'), (SAN, 15, '14.1', '14.1'), (SAN, 19, '17.6', '17.6'),
    (LRNet, 26, '14.7', '14.6'), (LRNet, 50, '23.3', '23.4'), (LRNet, 101, '42.0', '40.8'),
    (SAResNet, 26, '10.3', '10.3'), (SAResNet, 38, '14.1', '14.2'), (SAResNet, 50, '18.0', '18.0'),
])
def test_parameters(network, depth, printed, built):
    with torch.device('meta'):
        count = parameters(network(depth=depth)) / 1e6
    assert f'{count:.1f}' == built and count == pytest.approx(float(printed), rel=0.03)


def test_multiply_adds_of_san():
    """With a first 1×1 convolution in front of the first pooling, three times as many pixels more, those printed."""
    for depth, printed in ((10, '2.2'), (15, '3.0'), (19, '3.8')):
        with torch.device('meta'):
            count = count_madds(SAN(depth=depth)) + 1000 * 2048
        assert f'{(count + 3 * 112**2 * 64**2) / 1e9:.1f}' == printed


def test_attentions_of_san():
    with torch.device('meta'):
        model = SAN(depth=15)
    attentions = [[module for module in getattr(model, stage).modules() if isinstance(module, PairwiseSelfAttention2d)]
                  for stage in model.stages]
    assert [len(stage) for stage in attentions] == [3, 2, 3, 5, 2]
    assert [(stage[0].in_channels, stage[0].out_channels, stage[0].kernel_size, stage[0].conv1.out_channels)
            for stage in attentions] == [(64, 16, (3, 3), 4), (256, 64, (7, 7), 16), (512, 128, (7, 7), 32),
                                         (1024, 256, (7, 7), 64), (2048, 512, (7, 7), 128)]


def test_attentions_of_lrnet():
    with torch.device('meta'):
        model = LRNet(depth=26, similarity='product')
    middles = [block.conv2 for stage in model.stages for block in getattr(model, stage)]
    assert all(type(middle) is LocalRelation2d and middle.similarity == 'product' for middle in middles)
    assert [(middle.in_channels, middle.group_channels, middle.stride) for middle in middles] == [
        (100, 5, (1, 1)), (100, 5, (1, 1)), (200, 8, (2, 2)), (200, 8, (1, 1)), (400, 8, (2, 2)), (400, 8, (1, 1)),
        (800, 8, (2, 2)), (800, 8, (1, 1))]
    stem, = (module for module in model.stem if isinstance(module, LocalRelation2d))
    assert (stem.in_channels, stem.group_channels, stem.kernel_size, stem.stride) == (64, 8, (7, 7), (2, 2))


def test_attentions_of_sa_resnet():
    with torch.device('meta'):
        model = SAResNet(depth=38)
    middles = [block.conv2 for stage in model.stages for block in getattr(model, stage)]
    assert len(middles) == 12 and all(type(middle) is StandAloneSelfAttention2d for middle in middles)
    assert {(middle.heads, middle.kernel_size) for middle in middles} == {(8, (7, 7))}
    assert isinstance(model.stem[0], AttentionStem) and (model.stem[0].heads, model.stem[0].block_size) == (4, 4)


def test_keys_of_sa_resnet():
    """Table 6 of its paper: without keys and their products 16.7M of 18.0M."""
    with torch.device('meta'):
        model = SAResNet(depth=50)
    keys = sum(parameter.numel() for module in model.modules() if isinstance(module, StandAloneSelfAttention2d)
               for parameter in module.key.parameters())
    assert f'{keys / 1e6:.1f}' == '1.3'


def test_maps_and_gradients(name):
    """At odd sizes, and with every parameter learning."""
    stages = (1, 2, 3, 4) if name == 'SAN' else (0, 1, 2, 3)
    model = NETWORKS[name](out_indices=stages).train()
    maps = model(torch.randn(2, 3, 75, 97))
    sizes = [(18, 24), (9, 12), (4, 6), (2, 3)] if name == 'SAN' else [(19, 25), (10, 13), (5, 7), (3, 4)]
    assert [tuple(x.shape[1:]) for x in maps] == [(c, *size) for c, size in zip(CHANNELS[name], sizes)]
    sum(x.square().sum() for x in maps).backward()
    assert not [key for key, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()]
    assert model.eval()(torch.randn(1, 3, 32, 32))[-1].shape == (1, CHANNELS[name][3], 1, 1)


def test_frozen_stages_and_norm_eval(name):
    stem = ('conv_in.', 'bn_in.') if name == 'SAN' else ('stem.', )
    model = NETWORKS[name](frozen_stages=1, norm_eval=True).train()
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {key for key, _ in model.named_parameters() if key.startswith((*stem, 'layer1.'))}
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    model = NETWORKS[name](frozen_stages=1, freeze_attention=False).train()
    spared = {key for key, parameter in model.layer1.named_parameters() if parameter.requires_grad}
    assert spared and all(any(part in key for part in ('conv1', 'conv2', 'conv_p', 'conv_w', 'query', 'key', 'prior',
                                                        'embedding')) for key in spared)


def test_checkpointing(name):
    torch.manual_seed(0)
    x, results = torch.randn(2, 3, 64, 33), []
    for with_cp in (False, True):
        torch.manual_seed(1)
        model = NETWORKS[name](with_cp=with_cp).double().train()
        y, = model(x.double())
        y.square().sum().backward()
        results.append((y, *(parameter.grad for parameter in model.parameters()), *model.buffers()))
    for plain, thrifty in zip(*results):
        torch.testing.assert_close(thrifty, plain)


def test_in_the_registry(name):
    network = NETWORKS[name]
    model = MODELS.build(dict(network.keywords, type=name))
    assert type(model) is network.func
    model.init_weights()


@pytest.mark.parametrize(('name', 'argument', 'value'), [
    *(('SAN', argument, value) for argument, value in (
        ('depth', 26), ('base_channels', 48), ('num_stages', 6), ('kernel_size', 4), ('group_channels', 0),
        ('reduction', 0), ('out_indices', (5, )), ('frozen_stages', 6), ('in_channels', 0), ('norm_cfg', None))),
    *(('LRNet', argument, value) for argument, value in (
        ('depth', 38), ('base_channels', 0), ('kernel_size', 4), ('group_channels', 0), ('similarity', 'cosine'))),
    *(('SAResNet', argument, value) for argument, value in (('depth', 18), ('kernel_size', 2), ('heads', 3))),
])
def test_bad_arguments(name, argument, value):
    with pytest.raises(ValueError, match=argument):
        NETWORKS[name](**{argument: value})

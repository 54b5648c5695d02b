"""Every convolution layer works in whatever takes a ``conv_cfg``: it is built, keeps its own initialisation, trains,
and survives a conversion of the norms."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule, build_conv_layer
from mmengine.model import BaseModule, convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import dynconv_mm  # noqa: F401  registers the layers

# A layer without a static kernel is skipped where a module asks it for other channels, groups or padding than it has.
LAYERS = {
    'ODConv2d': dict(type='ODConv2d', kernel_num=2, min_channels=4),
    'DyConv2d': dict(type='DyConv2d'),
    'CondConv2d': dict(type='CondConv2d', kernel_num=3),
    'DCDConv2d': dict(type='DCDConv2d', squeeze_ratio=4),
    'Involution2d': dict(type='Involution2d', group_channels=1),
    'DCDC2d': dict(type='DCDC2d', group_channels=1),
    'CGConv2d': dict(type='CGConv2d'),
    'WeightNetConv2d': dict(type='WeightNetConv2d'),
    'DDFConv2d': dict(type='DDFConv2d', reduction=1 / 2),
    'PairwiseSelfAttention2d': dict(type='PairwiseSelfAttention2d', group_channels=1, reduction=1 / 3),
    'LocalRelation2d': dict(type='LocalRelation2d', group_channels=1),
    'StandAloneSelfAttention2d': dict(type='StandAloneSelfAttention2d', heads=1),
    'WEConv2d': dict(type='WEConv2d'),
    'KWConv2d': dict(type='KWConv2d'),
    'FDConv2d': dict(type='FDConv2d', kernel_num=3, static_channels=2),
    'LSConv2d': dict(type='LSConv2d', group_channels=2),
}
SAME_CHANNELS = ('Involution2d', 'DCDC2d', 'DDFConv2d', 'PairwiseSelfAttention2d', 'LocalRelation2d',
                 'StandAloneSelfAttention2d', 'LSConv2d')
NO_WEIGHT = ('DCDConv2d', 'KWConv2d', 'FDConv2d', *SAME_CHANNELS)  # to which a spectral norm belongs
BN, SMALL = dict(type='BN'), dict(stem_channels=8, base_channels=8)


class Parent(BaseModule):
    """Initialises its part, as a detector does, by a rule for every Conv2d."""

    def __init__(self, part: nn.Module, make_input: Callable) -> None:
        super().__init__(dict(type='Kaiming', layer='Conv2d'))
        self.part = part
        self.make_input = make_input


def conv_module(**kwargs) -> Callable[[dict], nn.Module]:
    return lambda conv_cfg: ConvModule(16, 16, 3, conv_cfg=conv_cfg, **{'padding': 1, **kwargs})


def of(package: str, kind: str, **kwargs) -> Callable[[dict], nn.Module]:
    """A module of mmdet or mmpretrain, by name."""

    def build(conv_cfg: dict) -> nn.Module:
        pytest.importorskip(f'{package}.models')
        registry = pytest.importorskip(f'{package}.registry').MODELS
        return registry.build(dict(type=kind, conv_cfg=conv_cfg, **kwargs))

    return build


def image(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size)


def features() -> Tensor:
    return torch.randn(2, 16, 9, 7)


def pyramid(*channels: int, strides: tuple[int, ...] = (1, 2, 4, 8)) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, c, 32 // stride, 16 // stride) for c, stride in zip(channels, strides))


NECK, EVEN_NECK = dict(in_channels=[8, 16, 24], out_channels=8), dict(in_channels=[8, 8, 8], out_channels=8)
HEAD = dict(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=2, norm_cfg=BN)
WIDTHS = dict(deepen_factor=.33, widen_factor=.125)
MODULES: dict[str, tuple[Callable[[dict], nn.Module], Callable]] = {
    'ConvModule': (conv_module(), features),
    'ConvModule norm': (conv_module(norm_cfg=BN), features),
    'ConvModule GN, no activation': (conv_module(norm_cfg=dict(type='GN', num_groups=2), act_cfg=None), features),
    'ConvModule bias': (conv_module(bias=True, act_cfg=dict(type='LeakyReLU')), features),
    'ConvModule norm, act, conv': (conv_module(norm_cfg=BN, order=('norm', 'act', 'conv')), features),
    'ConvModule act, conv, norm': (conv_module(norm_cfg=BN, order=('act', 'conv', 'norm'), inplace=False), features),
    'ConvModule reflect': (conv_module(padding_mode='reflect'), features),
    'ConvModule circular': (conv_module(padding_mode='circular', norm_cfg=BN), features),
    'ConvModule groups': (conv_module(groups=4, norm_cfg=BN), features),
    'ConvModule stride, dilation': (conv_module(stride=2, padding=2, dilation=2), features),
    'ConvModule spectral norm': (conv_module(with_spectral_norm=True), features),
    'DepthwiseSeparableConvModule': (
        lambda conv_cfg: DepthwiseSeparableConvModule(16, 8, 3, padding=1, norm_cfg=BN, conv_cfg=conv_cfg), features),
    'FPN': (of('mmdet', 'FPN', **NECK, num_outs=5, add_extra_convs='on_output', norm_cfg=BN),
            lambda: pyramid(8, 16, 24)),
    'PAFPN': (of('mmdet', 'PAFPN', **NECK, num_outs=3), lambda: pyramid(8, 16, 24)),
    'HRFPN': (of('mmdet', 'HRFPN', **NECK, num_outs=3), lambda: pyramid(8, 16, 24)),
    'BFP': (of('mmdet', 'BFP', in_channels=8, num_levels=3, refine_type='conv'), lambda: pyramid(8, 8, 8)),
    'ChannelMapper': (of('mmdet', 'ChannelMapper', **NECK, norm_cfg=BN), lambda: pyramid(8, 16, 24)),
    'CSPNeXtPAFPN': (of('mmdet', 'CSPNeXtPAFPN', **NECK, num_csp_blocks=1), lambda: pyramid(8, 16, 24)),
    'YOLOXPAFPN': (of('mmdet', 'YOLOXPAFPN', **NECK, num_csp_blocks=1), lambda: pyramid(8, 16, 24)),
    'RetinaHead': (of('mmdet', 'RetinaHead', **HEAD), lambda: pyramid(8, 8, 8, 8, 8, strides=(1, 2, 4, 8, 16))),
    'FCOSHead': (of('mmdet', 'FCOSHead', **HEAD), lambda: pyramid(8, 8, 8, 8, 8, strides=(1, 2, 4, 8, 16))),
    'ATSSHead': (of('mmdet', 'ATSSHead', **HEAD), lambda: pyramid(8, 8, 8, 8, 8, strides=(1, 2, 4, 8, 16))),
    'FCNMaskHead': (of('mmdet', 'FCNMaskHead', num_convs=2, in_channels=16, conv_out_channels=8, num_classes=3),
                    features),
    'Shared4Conv1FCBBoxHead': (of('mmdet', 'Shared4Conv1FCBBoxHead', in_channels=16, conv_out_channels=8,
                                  fc_out_channels=8, roi_feat_size=(9, 7), num_classes=3), features),
    'FPN, C to C': (of('mmdet', 'FPN', **EVEN_NECK, num_outs=5, add_extra_convs='on_output', norm_cfg=BN),
                    lambda: pyramid(8, 8, 8)),
    'PAFPN, C to C': (of('mmdet', 'PAFPN', **EVEN_NECK, num_outs=3), lambda: pyramid(8, 8, 8)),
    'ChannelMapper, C to C': (of('mmdet', 'ChannelMapper', **EVEN_NECK, norm_cfg=BN), lambda: pyramid(8, 8, 8)),
    'FCNMaskHead, C to C': (of('mmdet', 'FCNMaskHead', num_convs=2, in_channels=16, conv_out_channels=16,
                               num_classes=3), features),
    'mmdet ResNet': (of('mmdet', 'ResNet', depth=18, norm_eval=False, **SMALL), image),
    'mmdet ResNeXt': (of('mmdet', 'ResNeXt', depth=50, groups=2, base_width=8, norm_eval=False, num_stages=2,
                         strides=(1, 2), dilations=(1, 1), out_indices=(0, 1), **SMALL), image),
    'Darknet': (of('mmdet', 'CSPDarknet', **WIDTHS), image),
    'mmpretrain ResNet': (of('mmpretrain', 'ResNet', depth=18, **SMALL), image),
    'mmpretrain ResNeXt': (of('mmpretrain', 'ResNeXt', depth=50, groups=2, width_per_group=8, num_stages=2,
                              strides=(1, 2), dilations=(1, 1), out_indices=(1, ), **SMALL), image),
    'mmpretrain MobileNetV2': (of('mmpretrain', 'MobileNetV2', widen_factor=.1), image),
}


@pytest.fixture(params=LAYERS)
def conv_cfg(request) -> dict:
    return LAYERS[request.param]


@pytest.fixture(params=MODULES)
def module(request, conv_cfg) -> nn.Module:
    torch.manual_seed(0)
    build, make_input = MODULES[request.param]
    if 'spectral norm' in request.param and conv_cfg['type'] in NO_WEIGHT:
        pytest.skip(f"{conv_cfg['type']} has no parameter named weight")
    try:
        return Parent(build(dict(conv_cfg)), make_input)
    except ValueError:
        if conv_cfg['type'] not in (*SAME_CHANNELS, 'FDConv2d'):
            raise
        pytest.skip(f"{conv_cfg['type']} maps C to C channels, or takes no groups")


def layers_of(module: nn.Module, conv_cfg: dict) -> dict[str, nn.Module]:
    kind = MODELS.get(conv_cfg['type'])
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, kind)}


def tensors(output) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    else:
        for part in output:
            yield from tensors(part)


def run(module: Parent) -> list[Tensor]:
    torch.manual_seed(1)
    return list(tensors(module.part(module.make_input())))


def assert_as_fresh(layer: nn.Module, fresh: nn.Module) -> None:
    """Each entry is of the distribution that the layer itself gives it, heads that are one parameter apart."""
    actual_entries = layer.state_dict()
    for name, parameter in fresh.state_dict().items():
        if not parameter.is_floating_point():
            continue
        actual = actual_entries[name]
        assert actual.shape == parameter.shape
        count, spread = parameter.numel(), parameter.std(correction=0)
        if count > 1 and spread == 0:
            assert torch.equal(actual, parameter), name
        elif count >= 64:
            assert abs(actual.std(correction=0) / spread - 1) < 6 / count ** .5, name
            assert abs(actual.mean() - parameter.mean()) < 6 * spread / count ** .5, name


def test_each_layer_works_in_many_modules(conv_cfg):
    """What is skipped above is no more than what a layer cannot do."""
    pytest.importorskip('mmdet.models')
    pytest.importorskip('mmpretrain.models')
    works = set()
    for name, (build, _) in MODULES.items():
        if conv_cfg['type'] in NO_WEIGHT and 'spectral norm' in name:
            continue
        try:
            module = build(dict(conv_cfg))
        except ValueError:
            continue
        if layers_of(module, conv_cfg):
            works.add(type(module))
    # as many channels put out as taken in, and of LSConv2d no stride
    assert len(works) >= (7 if conv_cfg['type'] in ('DDFConv2d', 'LSConv2d') else 8)


@pytest.mark.one_at_a_time('conv_cfg', 'module')
def test_initialisation_survives_that_of_the_parents(module, conv_cfg):
    module.init_weights()
    layers = layers_of(module, conv_cfg)
    assert layers
    for layer in layers.values():
        if 'weight_orig' not in dict(layer.named_parameters()):  # of a spectral norm
            assert_as_fresh(layer, build_conv_layer(conv_cfg, layer.in_channels, layer.out_channels, layer.kernel_size,
                                                    groups=layer.groups, bias=layer.bias is not None))


@pytest.mark.one_at_a_time('conv_cfg', 'module')
def test_forward_and_backward(module, conv_cfg):
    module.init_weights()
    outputs = run(module.train())
    assert outputs and all(output.isfinite().all() for output in outputs)
    sum(output.square().mean() for output in outputs).backward()
    for layer_name, layer in layers_of(module, conv_cfg).items():
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), f'{layer_name}.{name}'
    before = [parameter.clone() for parameter in module.parameters()]
    torch.optim.SGD(module.parameters(), .1).step()
    assert any(not torch.equal(old, new) for old, new in zip(before, module.parameters()))
    assert [output.shape for output in run(module.eval())] == [output.shape for output in outputs]


def sync_norms(module: nn.Module) -> int:
    return sum(type(layer).__name__ == 'SyncBatchNorm' for layer in module.modules())


@pytest.mark.one_at_a_time('conv_cfg', 'module', 'convert')
@pytest.mark.parametrize('convert', [nn.SyncBatchNorm.convert_sync_batchnorm, convert_sync_batchnorm],
                         ids=['torch', 'mmengine'])
def test_converted_norms(module, conv_cfg, convert, request):
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    for norm in norms:
        norm.momentum = None  # so that a single step gives it the statistics of its features
    run(module.train())
    expected = run(module.eval())
    assert all(output.isfinite().all() for output in expected)
    converted = convert(module).eval()  # some conversions give norms in train mode
    assert sync_norms(converted) == len(norms)
    torch.testing.assert_close(run(converted), expected)
    reverted = revert_sync_batchnorm(converted).eval()
    assert sync_norms(reverted) == 0
    torch.testing.assert_close(run(reverted), expected)
    if 'spectral norm' not in request.node.callspec.id:
        sum(output.square().mean() for output in run(reverted.train())).backward()
        assert all(parameter.grad is not None for layer in layers_of(reverted, conv_cfg).values()
                   for parameter in layer.parameters())

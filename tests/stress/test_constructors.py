"""Any arguments of anything public give either a module that works, with the stated shape, or a ValueError."""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thin_networks import BACKBONES
from torch import nn

import dynconv_mm
from dynconv_mm.models import heads, necks

# The same examples in every run, so that a failure is nobody's luck.
BOUNDED = settings(derandomize=True, deadline=None, database=None,
                   suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                                          HealthCheck.data_too_large])
WRONG = (None, True, 0, -1, 0.5, 1.5, math.nan, math.inf, 'x', '', [], [1], (0, 0, 0), (1, 'a'), {}, dict(type='nope'),
         dict(type='GN'), object(), b'3')

sizes = st.integers(1, 3)
pairs = st.one_of(sizes, st.tuples(sizes, sizes))

# Layers.


def out_size(size: int, kernel: int, stride: int, padding: int | str, dilation: int) -> int:
    """As of ``torch.nn.Conv2d``."""
    if isinstance(padding, str):
        return size if padding == 'same' else (size - dilation * (kernel - 1) - 1) // stride + 1
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def convolutions(draw, **own: st.SearchStrategy) -> dict:
    """Arguments of ``torch.nn.Conv2d`` and a layer's own."""
    groups = draw(sizes)
    stride = draw(pairs)
    return dict(
        in_channels=groups * draw(sizes), out_channels=groups * draw(sizes), kernel_size=draw(pairs), stride=stride,
        padding=draw(st.one_of(pairs, st.sampled_from(['valid', 'same'] if stride in (1, (1, 1)) else ['valid']))),
        dilation=draw(pairs), groups=groups, bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(['zeros', 'replicate'])),
        **{name: draw(strategy) for name, strategy in own.items()})


@st.composite
def keeping_convolutions(draw, **own: st.SearchStrategy) -> dict:
    """Of the layers that map channels to as many."""
    group_channels = draw(st.integers(4, 5))
    channels = group_channels * draw(sizes)
    return dict(in_channels=channels, out_channels=channels, group_channels=group_channels,
                kernel_size=draw(st.sampled_from([1, 3, 5])), stride=draw(pairs), dilation=draw(sizes),
                bias=draw(st.booleans()), reduction=draw(st.floats(0.3, 1)), norm_cfg=draw(norms_of_width),
                **{name: draw(strategy) for name, strategy in own.items()})


norms_of_width = st.sampled_from([dict(type='BN'), dict(type='SyncBN'), dict(type='GN', num_groups=1), None])
odd = st.sampled_from([1, 3])
LAYERS = {
    'ODConv2d': convolutions(
        kernel_num=sizes, reduction=st.floats(0.01, 1), min_channels=st.sampled_from([2, 4]),
        attentions=st.sets(st.sampled_from(['spatial', 'channel', 'filter', 'kernel'])).map(sorted),
        spatial_activation=st.sampled_from(['sigmoid', 'softmax']), share_attention=st.booleans(),
        spatial_pool_size=sizes, temperature=st.floats(1, 30), norm_cfg=st.sampled_from([dict(type='BN'), None])),
    'DyConv2d': convolutions(kernel_num=sizes, reduction=st.floats(0.01, 1), temperature=st.floats(1, 30)),
    'CondConv2d': convolutions(kernel_num=sizes),
    'DCDConv2d': convolutions(variant=st.sampled_from(['bottleneck', 'basic', 'mobilenet', 'paper']),
                              squeeze_ratio=sizes, channel_attention=st.booleans(), fusion=st.just(None),
                              latent_multiplier=st.floats(0.5, 2)),
    'Involution2d': keeping_convolutions(padding_mode=st.sampled_from(['zeros', 'replicate'])),
    'DCDC2d': keeping_convolutions(
        lsa_kernel_size=odd, lsa_dw_kernel_size=st.sampled_from([None, 1, 3]), lsa_depth=sizes, gsi_kernel_size=odd,
        gsi_ratio=st.floats(1, 2), gsi=st.sampled_from(['dynamic', 'none', 'conv_small', 'conv_large'])),
    'CGConv2d': convolutions(group_channels=sizes, norm_cfg=st.sampled_from([dict(type='BN'), None])),
    'WeightNetConv2d': convolutions(multiplier=st.sampled_from([2, 4]), group_multiplier=st.sampled_from([1, 2])),
    'DDFConv2d': st.fixed_dictionaries(dict(
        in_channels=st.just(12), out_channels=st.just(12), kernel_size=st.sampled_from([3, 5]), stride=pairs,
        dilation=sizes, heads=sizes, combine=st.sampled_from(['mul', 'add']), reduction=st.floats(0.1, 1))),
    'PairwiseSelfAttention2d': keeping_convolutions(padding_mode=st.sampled_from(['zeros', 'reflect'])),
    'LocalRelation2d': st.fixed_dictionaries(dict(
        in_channels=st.just(12), out_channels=st.just(12), kernel_size=st.sampled_from([1, 3, 5]), stride=pairs,
        dilation=sizes, group_channels=sizes, similarity=st.sampled_from(['absolute', 'product']))),
    'StandAloneSelfAttention2d': st.fixed_dictionaries(dict(
        in_channels=st.just(12), out_channels=st.just(12), kernel_size=st.sampled_from([1, 3, 5]), stride=pairs,
        dilation=sizes, heads=sizes)),
    'WEConv2d': convolutions(reduction=st.floats(0.01, 1), location=st.booleans(), magnitude=st.booleans()),
    'KWConv2d': convolutions(cell_num_ratio=st.sampled_from([.3, 1, 2.5]),
                             nonlocal_basis_ratio=st.sampled_from([.5, 1]), reduction=st.floats(0.01, 1),
                             temperature=st.floats(0, 1)),
    'FDConv2d': convolutions(kernel_num=sizes, reduction=st.floats(0.01, 1), static_channels=sizes).map(
        lambda arguments: dict(arguments, groups=1)),
    'LSConv2d': st.fixed_dictionaries(dict(
        in_channels=st.just(12), out_channels=st.just(12), kernel_size=st.sampled_from([1, 3, 5]), dilation=sizes,
        group_channels=sizes, large_kernel_size=odd, bias=st.booleans())),
    'SELayer': st.fixed_dictionaries(dict(in_channels=sizes, ratio=sizes)),
    'CBAM': st.fixed_dictionaries(dict(in_channels=sizes, ratio=sizes, kernel_size=odd)),
    'ECALayer': st.fixed_dictionaries(dict(in_channels=sizes, kernel_size=st.sampled_from([None, 1, 3]))),
}


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.filterwarnings('ignore:An attention got a single sample', 'ignore:Using padding')
def test_layers_work(count, name):

    @settings(BOUNDED, max_examples=25)
    @given(arguments=LAYERS[name], training=st.booleans())
    def works(arguments, training):
        count('arguments of layers, all with the right result')
        layer = getattr(dynconv_mm, name)(**arguments).train(training)
        height, width = 11, 9
        x = torch.randn(2, arguments['in_channels'], height, width)
        y = layer(x)
        if 'stride' not in arguments:  # feature attention
            assert y.shape == x.shape
        else:
            out = [out_size(size, *values, padding, dilation) for size, *values, padding, dilation in zip(
                (height, width), layer.kernel_size, layer.stride,
                [layer.padding] * 2 if isinstance(layer.padding, str) else layer.padding, layer.dilation)]
            assert y.shape == (2, layer.out_channels, *out)
        assert y.isfinite().all()
        y.sum().backward()

    works()


# Anything with one argument wrong.


CONV = dict(in_channels=8, out_channels=8, kernel_size=3)
KEEPING = dict(in_channels=16, out_channels=16, kernel_size=3)
HEAD = dict(num_classes=3, in_channels=8)
VALID = {
    'ODConv2d': CONV, 'DyConv2d': CONV, 'CondConv2d': CONV, 'DCDConv2d': CONV, 'Involution2d': KEEPING,
    'DCDC2d': KEEPING, 'CGConv2d': CONV, 'WeightNetConv2d': CONV, 'DDFConv2d': CONV, 'WEConv2d': CONV,
    'KWConv2d': CONV, 'KWLinearClsHead': HEAD,
    'PairwiseSelfAttention2d': dict(KEEPING, reduction=1 / 8), 'LocalRelation2d': KEEPING,
    'StandAloneSelfAttention2d': KEEPING, 'LSConv2d': KEEPING, 'FDConv2d': dict(CONV, static_channels=4, kernel_num=3),
    'SELayer': dict(in_channels=8), 'CBAM': dict(in_channels=8), 'ECALayer': dict(in_channels=8),
    'DropoutLinearClsHead': dict(HEAD, dropout=0.1), 'CondConvLinearClsHead': HEAD, 'DCDLinearClsHead': HEAD,
    'DynamicFPN': dict(fpn_conv_cfg=dict(type='DCDC2d'), in_channels=[8, 16], out_channels=16, num_outs=2),
    'TemperatureAnnealingHook': {}, 'PanopticQualityMetric': dict(ann_file='annotations.json', seg_prefix='folder'),
    'LoadCocoPanopticAnnotations': {},
    **{name: dict(network.keywords) for name, network in BACKBONES.items()},
}
# Flags, of which Python takes anything for true or false, where torch's go, and what is handed on unseen.
NOT_CHECKED = {'device', 'share_attention', 'deep_stem', 'avg_down', 'norm_eval', 'with_cp',
               'zero_init_residual', 'init_cfg', 'with_bbox', 'with_label', 'with_mask', 'with_seg', 'backend_args',
               'classwise', 'format_only', 'seg_prefix', 'outfile_prefix', 'prefix', 'collect_device'}
HANDED_ON = dict.fromkeys(['attention_norm_cfg', 'residual_norm_cfg'], 'norm_cfg')  # to layers, under these names
NEEDS = {'ClsHead': 'mmpretrain', 'DynamicFPN': 'mmdet', 'LoadCoco': 'mmdet'}


def parameters_of(constructor: Callable) -> list[str]:
    """Names of what it takes, those that it hands on to the classes that it stands on too."""
    names = {}
    for part in (constructor.__mro__ if inspect.isclass(constructor) else [constructor]):
        function = vars(part).get('__init__') if inspect.isclass(part) else part
        if function is None or part in (nn.Module, object) or not part.__module__.startswith('dynconv_mm'):
            continue
        parameters = inspect.signature(function).parameters.values()
        names.update((p.name, None) for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind == p.VAR_KEYWORD and p.name != 'unknown' for p in parameters):
            break
    return [name for name in names if name != 'self']


@pytest.mark.parametrize('name', VALID)
def test_what_is_wrong_is_a_value_error(count, name):
    for part, package in NEEDS.items():
        if part in name:
            pytest.importorskip(package)
    constructor, valid = getattr(dynconv_mm, name), VALID[name]
    wrong = [(argument, value) for argument in {**dict.fromkeys(parameters_of(constructor)), **valid}
             if argument not in NOT_CHECKED for value in WRONG]
    assert wrong
    refused = 0
    for argument, value in wrong:
        count('wrong arguments tried, each accepted or refused by a ValueError')
        try:
            with torch.device('meta'):  # sizes alone
                constructor(**{**valid, argument: value})
        except ValueError as error:
            refused += 1
            assert HANDED_ON.get(argument, argument) in str(error), (argument, value)
    assert refused > len(wrong) / 4


@pytest.mark.parametrize(('name', 'argument', 'key', 'close'), [
    ('ODConvResNet', 'norm_cfg', 'epsilon', "'eps'"), ('SAN', 'norm_cfg', 'epsilon', "'eps'"),
    ('DCDMobileNetV2', 'act_cfg', 'in_place', "'inplace'"), ('ODConvMobileNetV2', 'conv_cfg', 'kernel_nums', ''),
    ('Involution2d', 'norm_cfg', 'epsilon', "'eps'"), ('LSConv2d', 'norm_cfg', 'momentun', "'momentum'"),
    ('DynamicFPN', 'fpn_conv_cfg', 'gsi_ration', "'gsi_ratio'")])
def test_a_key_that_is_not_taken(name, argument, key, close):
    if name == 'DynamicFPN':
        pytest.importorskip('mmdet')
    cfg = dict(type=dict(conv_cfg='Conv2d', act_cfg='ReLU', fpn_conv_cfg='DCDC2d').get(argument, 'BN'))
    with pytest.raises(ValueError, match=f"{argument} has '{key}', which '{cfg['type']}' does not take.*{close}"):
        getattr(dynconv_mm, name)(**{**VALID[name], argument: {**cfg, key: 1}})


@pytest.mark.parametrize('name', BACKBONES)
def test_a_backbones_unknown_argument(name):
    """In the words of Python, with the name of the class that was called."""
    with pytest.raises(TypeError, match=rf"^{name}(\.__init__\(\))? got an unexpected keyword argument 'norm_evall'"
                                        + ("; did you mean .*'norm_eval'" if name != 'SAN' else '')):
        BACKBONES[name](norm_evall=True)


# Networks.


RESNETS = dict(num_stages=st.integers(1, 4), style=st.sampled_from(['pytorch', 'caffe']), avg_down=st.booleans(),
               frozen_stages=st.integers(-1, 1), norm_eval=st.booleans(), with_cp=st.booleans(),
               drop_path_rate=st.floats(0, 0.5), in_channels=sizes)
MOBILENETS = dict(frozen_stages=st.integers(-1, 8), norm_eval=st.booleans(), with_cp=st.booleans(), in_channels=sizes,
                  widen_factor=st.floats(0.05, 0.2))


SANS = dict(num_stages=st.integers(1, 5), frozen_stages=st.integers(-1, 1), norm_eval=st.booleans(),
            with_cp=st.booleans(), in_channels=sizes)


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones_work(count, name):
    options = MOBILENETS if 'MobileNet' in name else SANS if name == 'SAN' else RESNETS

    @settings(BOUNDED, max_examples=5)
    @given(arguments=st.fixed_dictionaries(options), data=st.data())
    def works(arguments, data):
        stages = arguments.get('num_stages', 8 if 'MobileNet' in name else 4)
        arguments['out_indices'] = tuple(sorted(data.draw(st.sets(st.integers(0, stages - 1), min_size=1))))
        count('arguments of backbones, all with the right result')
        if name.startswith('CondConv'):
            arguments['dynamic_blocks'] = 1
        model = BACKBONES[name](**arguments).train()
        maps = model(torch.randn(2, arguments['in_channels'], 64, 33))
        assert len(maps) == len(arguments['out_indices'])
        for index, y in zip(arguments['out_indices'], maps):
            stride = (2, 4, 8, 16, 16, 32, 32, 32)[index] if 'MobileNet' in name else 4 * 2**index
            expected = 64 // stride, math.ceil(33 / stride)
            if name == 'SAN':  # which pools by 2 in each stage, and leaves the edge out
                expected = 64 // 2**(index + 1), 33 // 2**(index + 1)
            assert y.shape[0] == 2 and y.shape[2:] == expected

    works()


def test_nothing_public_is_left_out():
    public = (*dynconv_mm.__all__, *heads.__all__, *necks.__all__)
    classes = {name for name in public if name[0].isupper() and name not in (
        'Dynamicized',  # takes a model's config, see tests/conversion/test_dynamicized_model.py
        'OwnAreaAveraged',  # likewise, see tests/models/test_own_areas.py
        'Warehoused',  # likewise, see tests/layers/test_kernel_warehouse.py
        'EpochSeedHook',  # takes nothing
        'AtomicCheckpointHook', 'WholeCheckpointHook')}  # hands all on to mmengine's
    assert classes == set(VALID)

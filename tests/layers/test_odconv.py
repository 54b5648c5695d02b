"""ODConv2d: equal to the reference's layer, to its own equations, and at home in the OpenMMLab stack."""
from __future__ import annotations

import copy
import math
import pickle
import warnings
from itertools import combinations, product

import pytest
import torch
from conv_layers import randomize
from golden import Golden
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.model import BaseModule
from mmengine.model.weight_init import initialize
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from dynconv_mm.functional import PLANS
from dynconv_mm.functional.operator import Backend
from dynconv_mm.layers import ODConv2d

HEADS = ('spatial', 'channel', 'filter', 'kernel')
SUBSETS = [subset for size in range(5) for subset in combinations(HEADS, size)]
SMALL = dict(in_channels=6, out_channels=4, kernel_size=3, kernel_num=3, min_channels=4)
TEMPERATURE = 2.5


def make_layer(**options) -> ODConv2d:
    """In float64, all of whose parameters and statistics are random."""
    layer = randomize(ODConv2d(**{**SMALL, **options}).double())
    layer.set_temperature(TEMPERATURE)
    return layer


def make_input(batch: int = 3, channels: int = 6) -> Tensor:
    return torch.randn(batch, channels, 8, 7, generator=torch.Generator().manual_seed(1)).double()


def assert_agree(actual: Tensor, expected: Tensor, what: str = 'output', tolerance: float = 1e-9) -> None:
    assert actual.shape == expected.shape, what
    assert (actual - expected).abs().max() <= tolerance, what


# The reference's layer.


@pytest.mark.parametrize('name', [f'odconv_{i}' for i in range(5)])
def test_golden(name):
    golden = Golden(name)
    kwargs = golden.meta['kwargs']
    layer = ODConv2d(kwargs.pop('in_planes'), kwargs.pop('out_planes'), bias=False, **kwargs)
    layer.set_temperature(30)
    x = golden.check(layer)  # at a temperature of 1, which the reference does not save
    layer.load_state_dict(golden.state_dict)
    layer.set_temperature(30)
    assert_agree(layer.eval()(x), golden.arrays['y_eval_T30'], 'y_eval_T30')


# The layer's equations, literally.


def pool(x: Tensor, size: int) -> Tensor:
    def bins(length: int) -> list[slice]:
        return [slice(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]

    return torch.stack([x[:, :, rows, columns].mean((2, 3)) for rows in bins(x.shape[2])
                        for columns in bins(x.shape[3])], -1)


def normalise(norm_cfg: dict | None, tensors: dict[str, Tensor], hidden: Tensor, training: bool) -> Tensor:
    if norm_cfg is None:
        return hidden
    if norm_cfg['type'] == 'BN':
        mean, var = tensors['attention.bn.running_mean'], tensors['attention.bn.running_var']
        if training:
            mean, var = hidden.mean(0), hidden.var(0, correction=0)
    else:
        grouped = hidden.reshape(len(hidden), norm_cfg.get('num_groups', 1), -1)
        mean, var = (statistic.expand_as(grouped).reshape(hidden.shape) for statistic in (
            grouped.mean(-1, keepdim=True), grouped.var(-1, correction=0, keepdim=True)))
    hidden = (hidden - mean) / torch.sqrt(var + 1e-5)
    return hidden * tensors['attention.bn.weight'] + tensors['attention.bn.bias']


def literal(options: dict, tensors: dict[str, Tensor], x: Tensor, training: bool) -> Tensor:
    """pool → FC → norm → ReLU → heads / τ → activations → Eq. 2, from the state of a layer."""
    weight, groups, batch = tensors['weight'], options.get('groups', 1), len(x)
    n, out_channels, group_channels, kernel_height, kernel_width = weight.shape
    lengths = dict(kernel=n, filter=out_channels, channel=groups * group_channels,
                   spatial=kernel_height * kernel_width)
    alpha = {head: x.new_ones(batch, 1, length) for head, length in lengths.items()}
    if 'attention.fc.weight' in tensors:
        pooled = pool(x, options.get('spatial_pool_size', 1))
        hidden = pooled.flatten(1) @ tensors['attention.fc.weight'].flatten(1).T
        hidden = normalise(options.get('norm_cfg', dict(type='BN')), tensors, hidden, training).relu()
        for head, length in lengths.items():
            if f'attention.{head}_fc.weight' in tensors:
                logits = hidden @ tensors[f'attention.{head}_fc.weight'].flatten(1).T
                logits = (logits + tensors[f'attention.{head}_fc.bias']) / TEMPERATURE
                logits = logits.reshape(batch, -1, length)
                softmax = head == 'kernel' or (head, options.get('spatial_activation')) == ('spatial', 'softmax')
                e = logits.exp()
                alpha[head] = e / e.sum(-1, keepdim=True) if softmax else 1 / (1 + 1 / e)
    conv = nn.Conv2d(dtype=x.dtype, **{name: value for name, value in options.items() if name in (
        'in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups', 'bias',
        'padding_mode')})
    samples = []
    for b in range(batch):
        kernel = 0
        for i in range(n):
            own = {head: value[b, i % value.shape[1]] for head, value in alpha.items()}
            channel = own['channel'].reshape(groups, group_channels).repeat_interleave(out_channels // groups, 0)
            kernel = kernel + (alpha['kernel'][b, 0, i] * own['filter'][:, None, None, None] * channel[:, :, None, None]
                               * own['spatial'].reshape(kernel_height, kernel_width) * weight[i])
        parameters = {'weight': kernel, **({'bias': tensors['bias']} if 'bias' in tensors else {})}
        samples.append(functional_call(conv, parameters, x[b:b + 1], strict=True))
    return torch.cat(samples)


def check_against_equations(options: dict) -> ODConv2d:
    """Outputs and gradients, in eval and train mode."""
    options = {**SMALL, **options}
    layer, x = make_layer(**options), make_input(channels=options['in_channels']).requires_grad_()
    tensors = layer.state_dict(keep_vars=True)
    inputs = {'x': x, **dict(layer.named_parameters())}
    for training in (False, True):
        expected = literal(options, tensors, x, training)
        expected_gradients = torch.autograd.grad((expected ** 2).sum(), list(inputs.values()))
        actual = layer.train(training)(x)
        assert_agree(actual, expected, f'training={training}')
        gradients = torch.autograd.grad((actual ** 2).sum(), list(inputs.values()))
        for name, gradient, expected_gradient in zip(inputs, gradients, expected_gradients):
            scale = 1 + expected_gradient.abs().max()
            assert_agree(gradient / scale, expected_gradient / scale, f'gradient of {name}, training={training}')
    return layer


@pytest.mark.parametrize('share_attention', [True, False])
@pytest.mark.parametrize('attentions', SUBSETS, ids='-'.join)
def test_equations_of_all_subsets(attentions, share_attention):
    layer = check_against_equations(dict(attentions=attentions, share_attention=share_attention))
    assert set(layer.compute_attentions(make_input())) == set(attentions)


@pytest.mark.filterwarnings('ignore:Using padding=.same. with even kernel')
@pytest.mark.parametrize('share_attention', [True, False])
@pytest.mark.parametrize('options', [
    dict(kernel_num=1),
    dict(kernel_size=1),
    dict(kernel_size=(1, 5), padding=(0, 2)),
    dict(spatial_activation='softmax'),
    dict(spatial_pool_size=3),
    dict(reduction=1, norm_cfg=dict(type='LN')),
    dict(norm_cfg=dict(type='GN', num_groups=2)),
    dict(norm_cfg=None),
    dict(bias=False),
    dict(groups=2),
    dict(in_channels=4, groups=4),
    dict(in_channels=4, groups=4, attentions=('channel', 'filter')),
    dict(in_channels=2, groups=2),
    dict(stride=(2, 3), padding=(2, 1), dilation=(1, 2)),
    dict(padding='valid', stride=2, padding_mode='circular'),
    *(dict(padding_mode=mode, **rest) for mode, rest in product(('zeros', 'reflect', 'replicate', 'circular'), (
        dict(padding=(1, 2), stride=2), dict(padding='same', kernel_size=(2, 4), dilation=(3, 1))))),
], ids=str)
def test_equations_of_all_options(options, share_attention):
    check_against_equations(dict(share_attention=share_attention, **options))


def test_the_plan_is_the_one_asked_for(monkeypatch):
    monkeypatch.setitem(PLANS, 'mine', Backend(lambda mixture: mixture.input + 1))
    x = make_input()
    assert_agree(make_layer(plan='mine')(x), x + 1)


# The structure.


@pytest.mark.parametrize(('options', 'heads'), [
    (dict(), HEADS),
    (dict(kernel_size=1), ('channel', 'filter', 'kernel')),
    (dict(kernel_size=(1, 3)), HEADS),
    (dict(kernel_num=1), ('spatial', 'channel', 'filter')),
    (dict(in_channels=4, groups=4), ('spatial', 'channel', 'kernel')),
    (dict(in_channels=2, groups=2), HEADS),  # two filters a channel are more than depthwise
    (dict(in_channels=4, groups=4, kernel_size=1, kernel_num=1), ('channel',)),
])
def test_heads_that_the_reference_leaves_out(options, heads):
    layer = ODConv2d(**{**SMALL, **options})
    assert set(layer.attention.head_channels) == set(heads)
    names = {name.split('.')[0] for name in layer.attention.state_dict()}
    assert names == {'fc', 'bn', *(f'{head}_fc' for head in heads)}


@pytest.mark.parametrize('options', [
    dict(attentions=()),
    dict(attentions=['spatial'], kernel_size=1),
    dict(attentions=['kernel'], kernel_num=1),
    dict(attentions=['filter'], in_channels=4, groups=4),
])
def test_without_attention_it_is_an_ordinary_convolution(options):
    layer = make_layer(**options)
    assert layer.attention is None and set(dict(layer.named_parameters())) == {'weight', 'bias'}
    x = make_input(channels=layer.in_channels)
    assert layer.compute_attentions(x) == {}
    assert_agree(layer(x), F.conv2d(x, layer.weight.sum(0), layer.bias, groups=layer.groups))


@pytest.mark.parametrize(('in_channels', 'options', 'width'), [
    (64, {}, 16), (256, {}, 16), (272, {}, 17), (287, {}, 17), (64, dict(min_channels=3), 4),
    (20, dict(reduction=.25, min_channels=1), 5), (8, dict(reduction=1, min_channels=4), 8),
])
def test_hidden_width(in_channels, options, width):
    attention = ODConv2d(in_channels, 2, 1, **options).attention
    assert attention.fc.weight.shape == (width, in_channels, 1, 1)
    assert attention.bn.num_features == width


@pytest.mark.parametrize('share_attention', [True, False])
def test_attentions_are_as_announced(share_attention):
    layer = make_layer(kernel_size=(3, 1), groups=2, share_attention=share_attention)
    attentions = layer.compute_attentions(make_input())
    own = () if share_attention else (3,)
    assert {name: tuple(value.shape) for name, value in attentions.items()} == dict(
        kernel=(3, 3), spatial=(3, *own, 3), channel=(3, *own, 6), filter=(3, *own, 4))
    assert_agree(attentions['kernel'].sum(1), torch.ones(3).double())


def test_extra_repr():
    assert ODConv2d(8, 6, 3).extra_repr() == '8, 6, kernel_size=(3, 3), stride=(1, 1), kernel_num=4'
    layer = ODConv2d(8, 6, (3, 1), 2, (1, 0), 2, 2, False, 'circular', kernel_num=2, share_attention=False,
                     spatial_activation='softmax', plan='grouped')
    assert layer.extra_repr() == (
        "8, 6, kernel_size=(3, 1), stride=(2, 2), padding=(1, 0), dilation=(2, 2), groups=2, padding_mode='circular', "
        "bias=False, kernel_num=2, plan='grouped', share_attention=False, spatial_activation='softmax'")
    assert '(fc): FullyConnected(8, 16, pool_size=3, bias=False)' in repr(ODConv2d(8, 6, 3, spatial_pool_size=3))


@pytest.mark.parametrize(('name', 'values'), [
    ('in_channels', (0, -4, 8., True, '8', None)),
    ('out_channels', (0, -4, 8., True)),
    ('groups', (0, -2, 2., '2', None, 4)),
    ('kernel_size', (0, (3,), (3, 0), (3, 3, 3), 3., '3', True, None)),
    ('stride', (0, -1, (1, 2, 3), 1.5)),
    ('padding', (-1, (1, -1), 'full', 1.5, None)),
    ('dilation', (0, (2, 0), '2')),
    ('padding_mode', ('constant', None)),
    ('kernel_num', (0, 2.5, True, None)),
    ('reduction', (0, -.1, 1.5, 16, math.nan, '1/16', True)),
    ('min_channels', (0, 2.5, None)),
    ('attentions', ('spatial', ('kernel', 'kernel'), ('time',), {'kernel'}, None, (['kernel'],))),
    ('spatial_activation', ('tanh', None, ['sigmoid'])),
    ('spatial_pool_size', (0, (3, 3), True)),
    ('temperature', (0, -1, math.inf, math.nan, '30', True, None)),
    ('norm_cfg', ('BN', {}, dict(type='IN'))),
    ('plan', ('fast', None, ['grouped'])),
])
def test_bad_arguments_are_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf'\b{name}\b'):
            pytest.fail(f'{name}={value!r} was taken: {ODConv2d(**{**SMALL, name: value})}')


@pytest.mark.parametrize(('options', 'words'), [
    (dict(groups=3), 'out_channels must be divisible by groups'),
    (dict(groups=4), 'in_channels must be divisible by groups'),
    (dict(padding='same', stride=2), "padding='same' needs stride 1"),
])
def test_arguments_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ODConv2d(**{**SMALL, **options})


# Initialisation.


def assert_kaiming(weight: Tensor, fan_out: int) -> None:
    standard, tolerance = weight.detach() / math.sqrt(2 / fan_out), 5 / math.sqrt(weight.numel())
    assert abs(standard.std() - 1) < tolerance and abs(standard.mean()) < tolerance


@pytest.mark.parametrize('groups', [1, 4])
def test_initialisation(groups):
    torch.manual_seed(0)
    layer = ODConv2d(64, 32, 3, groups=groups, kernel_num=3, reduction=1)
    drawn = []
    for _ in range(2):
        drawn.append({name: value.clone() for name, value in layer.state_dict().items()
                      if value.is_floating_point() and 'running' not in name and name != 'temperature'})
        for name, value in drawn[-1].items():
            if name.endswith('bias'):
                assert not value.any(), name
            elif name == 'weight':
                for kernel in value:
                    assert_kaiming(kernel, 32 * 3 * 3)
            elif 'bn' not in name:
                assert_kaiming(value, len(value))
        for name, value in layer.state_dict().items():
            if name.endswith('bias') and 'bn' not in name:
                nn.init.ones_(value)
        layer.init_weights()
    same = {name for name, value in drawn[0].items() if torch.equal(value, drawn[1][name])}
    assert same == {name for name in drawn[0] if name.endswith('bias') or 'bn' in name}


class Parent(BaseModule):

    def __init__(self, init_cfg: dict) -> None:
        super().__init__(init_cfg)
        self.dynamic = ODConv2d(64, 32, 3)
        self.static = nn.Conv2d(8, 6, 3)


@pytest.mark.parametrize(('cfg', 'touched'), [
    (dict(type='Kaiming', bias=7, layer=['Conv2d', 'Linear']), ['static']),
    (dict(type='Constant', val=7, bias=7, layer=['Conv2d', 'Linear', '_BatchNorm']),
     ['static', 'dynamic.attention.bn']),
], ids=str)
def test_init_cfg_of_a_parent_leaves_the_layer_alone(cfg, touched):
    parent = Parent(cfg)
    before = copy.deepcopy(parent.state_dict())
    initialize(parent, cfg)
    changed = {name for name, value in parent.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f'{module}.{name}' for module in touched for name in ('weight', 'bias')}

    parent.init_weights()  # as a runner does: init_cfg, then the children's own
    for kernel in parent.dynamic.weight:
        assert_kaiming(kernel, 32 * 3 * 3)
    assert not parent.dynamic.attention.channel_fc.bias.any()


# OpenMMLab builds it.


def test_build_conv_layer():
    layer = build_conv_layer(dict(type='ODConv2d', kernel_num=2), 8, 6, 3, padding=1, bias=False)
    assert isinstance(layer, ODConv2d) and layer.weight.shape == (2, 6, 8, 3, 3) and layer.bias is None


def test_conv_module():
    module = ConvModule(8, 6, 3, padding=1, conv_cfg=dict(type='ODConv2d', kernel_num=2), norm_cfg=dict(type='BN'))
    assert isinstance(module.conv, ODConv2d) and module.conv.kernel_num == 2 and module.conv.bias is None
    module.init_weights()
    assert_kaiming(module.conv.weight, 6 * 3 * 3)
    x = torch.randn(2, 8, 5, 7)
    y = module.eval()(x)
    torch.testing.assert_close(y, module.norm(module.conv(x)).relu())
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


# Batches of one and of none.


def statistics(layer: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in layer.named_buffers()}


def test_a_single_sample_in_training_uses_the_running_statistics():
    layers, x = [make_layer(), make_layer(share_attention=False)], make_input(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')  # once for each place in the code
        for layer in layers * 2:
            before = statistics(layer.train())
            output, attentions = layer(x), layer.compute_attentions(x)
            assert_agree(output, layer.eval()(x))
            for head, value in layer.compute_attentions(x).items():
                assert_agree(attentions[head], value, head)
            assert all(torch.equal(value, before[name]) for name, value in statistics(layer).items())
    assert len(caught) == 1 and 'got a single sample' in str(caught[0].message)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('options', [dict(padding_mode='reflect'), dict(share_attention=False, groups=2),
                                     dict(norm_cfg=dict(type='LN')), dict(attentions=())], ids=str)
def test_an_empty_batch(options, training):
    layer = make_layer(stride=2, padding=1, **options).train(training)
    before, x = statistics(layer), make_input(0).requires_grad_()
    y = layer(x)
    assert y.shape == (0, 4, 4, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in statistics(layer).items())


# Copies, types, devices, memory formats.


def through_state_dict(layer: ODConv2d) -> ODConv2d:
    other = ODConv2d(**SMALL).double()
    other.load_state_dict(layer.state_dict(), strict=True)
    return other


@pytest.mark.parametrize('make_copy', [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)),
                                       through_state_dict], ids=['deepcopy', 'pickle', 'state_dict'])
def test_copies_are_equal_and_independent(make_copy):
    layer, x = make_layer().eval(), make_input()
    other, expected = make_copy(layer).eval(), layer(x)
    assert torch.equal(other(x), expected)
    with torch.no_grad():
        for tensor in (*layer.parameters(), layer.temperature):
            tensor.add_(1)
    assert torch.equal(other(x), expected) and not torch.equal(layer(x), expected)


def test_converted_to_sync_batch_norm():
    layer, x = make_layer().eval(), make_input()
    expected = layer(x)
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(layer).eval()  # in torch 2.1 the new norms are in train mode
    assert isinstance(layer.attention.bn, nn.SyncBatchNorm)
    assert_agree(layer(x), expected)


def test_bfloat16():
    layer, x = make_layer(padding=1).eval(), make_input()
    expected, actual = layer(x), layer.bfloat16()(x.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert (actual - expected).abs().max() < .05 * expected.abs().max()


@pytest.mark.parametrize('dtype', [None, torch.float64])
@pytest.mark.parametrize('device', [None, 'meta', torch.device('cpu')])
def test_device_and_dtype(device, dtype):
    layer = ODConv2d(**SMALL, device=device, dtype=dtype)
    tensors = layer.state_dict()
    tensors.pop('attention.bn.num_batches_tracked')
    assert {(tensor.device.type, tensor.dtype) for tensor in tensors.values()} == {
        ('meta' if device == 'meta' else 'cpu', dtype or torch.float32)}
    x = torch.empty(2, 6, 5, 5, device=device, dtype=dtype)
    assert layer(x).shape == (2, 4, 3, 3) and layer(x).device == x.device


@pytest.mark.parametrize('options', [dict(padding=1, groups=2), dict(padding='same', kernel_size=2), dict(stride=2)])
def test_channels_last_input(options):
    layer, x = make_layer(**options), make_input()
    assert_agree(layer(x.contiguous(memory_format=torch.channels_last)), layer(x))


def test_memory_format():
    """`model.to(memory_format=channels_last)` keeps the stack of kernels, its values, dtype and gradient."""
    layer = ODConv2d(4, 6, 3, padding=1, kernel_num=2)
    x = torch.randn(2, 4, 5, 7)
    expected = layer.eval()(x)
    expected.sum().backward()
    gradient = layer.weight.grad.clone()
    before = layer.weight
    layer.to(memory_format=torch.channels_last)
    assert layer.weight is before and layer.weight.shape == (2, 6, 4, 3, 3)
    assert layer.weight[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer.weight.grad, gradient)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)
    assert layer.double().weight.dtype == torch.float64

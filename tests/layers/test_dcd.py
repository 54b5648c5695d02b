"""DCDConv2d: equal to the released layers, to the paper's equations, and at home in the OpenMMLab stack."""
from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch
from conv_layers import randomize
from golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.model import BaseModule
from mmengine.model.weight_init import initialize
from one_graph import needs_one_graph
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.layers import DCDConv2d
from dynconv_mm.layers.dcd import FUSIONS, VARIANTS

RELEASED = [variant for variant in VARIANTS if variant != 'paper']
SMALL = dict(in_channels=8, out_channels=6, kernel_size=3, squeeze_ratio=4)
CONV = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups', 'bias', 'padding_mode')


def make_layer(**options) -> DCDConv2d:
    """In float64, all of whose parameters and statistics are random."""
    return randomize(DCDConv2d(**{**SMALL, **options}).double())


def make_input(batch: int = 3, channels: int = 8, size: tuple[int, int] = (8, 7)) -> Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1)).double()


def assert_agree(actual: Tensor, expected: Tensor, what: str = 'output', tolerance: float = 1e-9) -> None:
    assert actual.shape == expected.shape, what
    assert (actual - expected).abs().max() <= tolerance, what


# The released layers.


def golden_layer(op: str, args: list[int]) -> DCDConv2d:
    in_channels, out_channels, *rest = args
    if op == 'conv_dy':
        return DCDConv2d(in_channels, out_channels, *rest, bias=False, variant='bottleneck')
    if op == 'conv_basic_dy':
        return DCDConv2d(in_channels, out_channels, 3, *rest, 1, bias=False, variant='basic')
    squeeze_ratio, = rest or [8]
    return DCDConv2d(in_channels, out_channels, 1, bias=False, variant='mobilenet', squeeze_ratio=squeeze_ratio)


@pytest.mark.parametrize('name', [*(f'dcd_resnet_{i}' for i in range(3)), *(f'dcd_mbv2_{i}' for i in range(2))])
def test_golden(name):
    golden = Golden(name)
    golden.check(golden_layer(golden.meta['op'], golden.meta['args']))


# The equations, literally.


def pool(x: Tensor, size: int) -> Tensor:
    def bins(length: int) -> list[slice]:
        return [slice(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]

    return torch.stack([x[:, :, rows, columns].mean((2, 3)) for rows in bins(x.shape[2])
                        for columns in bins(x.shape[3])], -1).flatten(1)


def hsig(z: Tensor) -> Tensor:
    return (z + 3).clamp(0, 6) / 3


def coefficients(layer: DCDConv2d, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Λ, which is 1 where the layer has none, and Φ as it comes out of its FC."""
    tensors = layer.state_dict(keep_vars=True)
    if 'fc.0.weight' not in tensors:
        return x.new_ones(len(x), layer.out_channels), None
    pooled = pool(x, 1) if layer.variant == 'paper' else pool(x, layer.pool.pool_size)
    hidden = pooled @ tensors['fc.0.weight'].T
    hidden = hidden.relu() if layer.variant == 'paper' else hidden * hsig(hidden @ tensors['fc.1.fc.0.weight'].T)
    scale = (hsig(hidden @ tensors['fc_scale.weight'].T) if 'fc_scale.weight' in tensors else
             x.new_ones(len(x), layer.out_channels))
    return scale, hidden @ tensors['fc_phi.weight'].T if 'fc_phi.weight' in tensors else None


def literal_conv(layer: DCDConv2d, options: dict, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    conv = nn.Conv2d(dtype=x.dtype, **{**{name: options[name] for name in CONV if name in options}, 'groups': groups})
    parameters = {'weight': weight, **({'bias': layer.bias} if layer.bias is not None else {})}
    return torch.func.functional_call(conv, parameters, x, strict=True)


def literal_paper(layer: DCDConv2d, options: dict, x: Tensor) -> Tensor:
    """W(x) of Eq. 5 to 9, built for each sample and convolved with it."""
    tensors, blocks = layer.state_dict(keep_vars=True), options.get('blocks', 1)
    in_channels, out_channels = layer.in_channels, layer.out_channels
    scale, phi = coefficients(layer, x)
    samples = []
    for b in range(len(x)):
        static = tensors['conv.weight']
        if phi is not None and layer.groups == in_channels == out_channels:  # Eq. 8
            p, r = tensors['p.weight'].flatten(1), tensors['r.weight'].flatten(1).T
            weight = scale[b].diag() @ static.flatten(1) + p @ phi[b].reshape(p.shape[1], r.shape[1]) @ r.T
            samples.append(literal_conv(layer, options, x[b:b + 1], weight.reshape(static.shape), layer.groups))
            continue
        weight = x.new_zeros(out_channels, in_channels, *layer.kernel_size)
        out_step, in_step = out_channels // layer.groups, in_channels // layer.groups
        for o in range(out_channels):
            first = o // out_step * in_step
            weight[o, first:first + in_step] = scale[b, o] * static[o]
        if phi is not None:
            p, q = tensors['p.weight'][:, :, 0, 0], tensors['q.weight'][:, :, 0, 0]
            rank = p.shape[1]
            if 'r.weight' in tensors:  # Eq. 9
                r = tensors['r.weight'].flatten(1).T
            else:
                r = x.new_zeros(layer.kernel_size[0] * layer.kernel_size[1], 1)
                r[len(r) // 2] = 1
            cores = phi[b].reshape(blocks, rank, rank, r.shape[1])
            residual = torch.zeros_like(weight)
            for block, core in enumerate(cores):  # Eq. 7
                rows = slice(block * out_channels // blocks, (block + 1) * out_channels // blocks)
                columns = slice(block * in_channels // blocks, (block + 1) * in_channels // blocks)
                residual[rows, columns] = torch.einsum(
                    'ol,lmt,mi,kt->oik', p[rows], core, q[block * rank:(block + 1) * rank], r).reshape(
                        out_channels // blocks, in_channels // blocks, *layer.kernel_size)
            weight = weight + residual
        samples.append(literal_conv(layer, options, x[b:b + 1], weight, 1))
    return torch.cat(samples)


def batch_norm(tensors: dict[str, Tensor], name: str, x: Tensor, training: bool) -> Tensor:
    mean, var = tensors[f'{name}.running_mean'], tensors[f'{name}.running_var']
    if training:
        mean, var = x.mean((0, 2)), x.var((0, 2), correction=0)
    x = (x - mean[:, None]) / torch.sqrt(var + 1e-5)[:, None]
    return x * tensors[f'{name}.weight'][:, None] + tensors[f'{name}.bias'][:, None]


def literal_released(layer: DCDConv2d, options: dict, x: Tensor, training: bool) -> Tensor:
    """Λ·conv(x) + P (BN(Φ u) + u), u = BN(Q x at the centre of each window)."""
    tensors, prefix = layer.state_dict(keep_vars=True), 'conv_' if layer.variant == 'mobilenet' else ''
    scale, phi = coefficients(layer, x)
    y = literal_conv(layer, dict(options, bias=False), x, tensors['conv.weight'], layer.groups) if layer.bias is None \
        else literal_conv(layer, options, x, tensors['conv.weight'], layer.groups) - layer.bias[:, None, None]
    y = y * scale[:, :, None, None]
    if phi is not None:
        q, p = tensors[f'{prefix}q.weight'][:, :, 0, 0], tensors[f'{prefix}p.weight'][:, :, 0, 0]
        blocks, rank = options.get('blocks', 1), p.shape[1]
        centre = torch.zeros(layer.in_channels, 1, *layer.kernel_size, dtype=x.dtype)
        centre[:, :, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
        same = nn.Conv2d(dtype=x.dtype, **{**{name: options[name] for name in CONV if name in options}, 'bias': False,
                                           'out_channels': layer.in_channels, 'groups': layer.in_channels})
        centres = torch.func.functional_call(same, {'weight': centre}, x).flatten(2)
        u = torch.cat([q[b * rank:(b + 1) * rank] @ c for b, c in enumerate(centres.chunk(blocks, 1))], 1)
        u = batch_norm(tensors, 'bn1', u, training)
        fused = torch.cat([core.reshape(-1, rank, rank) @ part for core, part in zip(
            phi.chunk(blocks, 1), u.chunk(blocks, 1))], 1)
        v = batch_norm(tensors, 'bn2', fused, training) + u
        residual = torch.cat([rows @ part for rows, part in zip(p.chunk(blocks), v.chunk(blocks, 1))], 1)
        y = y + residual.reshape(y.shape)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def check_against_equations(options: dict) -> DCDConv2d:
    """Outputs and gradients, in eval and train mode."""
    options = {**SMALL, **options}
    layer, x = make_layer(**options), make_input(channels=options['in_channels']).requires_grad_()
    inputs = {'x': x, **dict(layer.named_parameters())}
    for training in (False, True):
        expected = (literal_paper(layer, options, x) if layer.variant == 'paper' else
                    literal_released(layer, options, x, training))
        expected_gradients = torch.autograd.grad((expected ** 2).sum(), list(inputs.values()))
        actual = layer.train(training)(x)
        assert_agree(actual, expected, f'training={training}')
        gradients = torch.autograd.grad((actual ** 2).sum(), list(inputs.values()))
        for name, gradient, expected_gradient in zip(inputs, gradients, expected_gradients):
            scale = 1 + expected_gradient.abs().max()
            assert_agree(gradient / scale, expected_gradient / scale, f'gradient of {name}, training={training}')
    return layer


@pytest.mark.parametrize('blocks', [1, 2])
@pytest.mark.parametrize('channel_attention', [True, False])
@pytest.mark.parametrize(('fusion', 'kernel_size', 'padding'), [
    (None, 3, 1), ('channel', 1, 0), ('channel', 3, 1), ('joint', 3, 1), ('joint', (2, 3), 0)], ids=str)
def test_equations_of_the_paper(fusion, kernel_size, padding, channel_attention, blocks):
    check_against_equations(dict(variant='paper', fusion=fusion, kernel_size=kernel_size, padding=padding,
                                 channel_attention=channel_attention, blocks=blocks))


@pytest.mark.parametrize('channel_attention', [True, False])
@pytest.mark.parametrize('options', [
    dict(), dict(kernel_size=(2, 3), stride=2), dict(fusion=None), dict(padding=2, dilation=2, bias=False),
    dict(latent_multiplier=.5), dict(padding_mode='circular', padding=1)], ids=str)
def test_equations_of_depthwise_convolution(options, channel_attention):
    check_against_equations(dict(variant='paper', in_channels=4, out_channels=4, groups=4,
                                 channel_attention=channel_attention, **options))


@pytest.mark.parametrize('fusion', ['channel', 'joint'])
@pytest.mark.parametrize('options', [
    dict(stride=(2, 3)), dict(stride=2, padding=1), dict(padding=(3, 0), dilation=(1, 2)), dict(bias=False),
    dict(groups=2, padding=2), dict(kernel_size=(1, 5), padding=(1, 2)), dict(padding='same', dilation=2),
    dict(padding='valid', stride=2), dict(latent_multiplier=.5), dict(latent_multiplier=2, squeeze_ratio=16),
    *(dict(padding=(1, 3), stride=2, padding_mode=mode) for mode in ('reflect', 'replicate', 'circular'))], ids=str)
def test_equations_of_all_options(options, fusion):
    check_against_equations(dict(variant='paper', fusion=fusion, **options))


@pytest.mark.parametrize('variant', RELEASED)
@pytest.mark.parametrize('options', [
    dict(), dict(padding=1, stride=2), dict(padding=(3, 0), dilation=(1, 2)), dict(kernel_size=1, bias=False),
    dict(channel_attention=False), dict(fusion=None), dict(fusion=None, channel_attention=False),
    dict(blocks=2), dict(latent_multiplier=.75, groups=2), dict(padding=1, padding_mode='reflect'),
    dict(in_channels=6, out_channels=10)], ids=str)
def test_equations_of_the_released_build(variant, options):
    check_against_equations(dict(variant=variant, **options))


# The structure.


def sizes(layer: DCDConv2d) -> tuple[int, int, int]:
    return layer.pool.pool_size, layer.latent_channels, layer.hidden_channels


@pytest.mark.parametrize(('variant', 'channels', 'options', 'expected'), [
    ('bottleneck', (64, 256), {}, (1, 8, 4)),  # of the released models
    ('bottleneck', (512, 2048), {}, (1, 22, 32)),
    ('basic', (64, 64), {}, (2, 16, 16)),
    ('basic', (512, 512), {}, (2, 45, 128)),
    ('basic', (3, 8), {}, (2, 3, 4)),
    ('mobilenet', (16, 96), {}, (2, 8, 4)),
    ('mobilenet', (96, 24), {}, (1, 12, 9)),
    ('mobilenet', (960, 320), {}, (1, 40, 100)),
    ('mobilenet', (2, 8), {}, (2, 4, 4)),
    ('paper', (64, 32), {}, (1, 8, 4)),  # 3.2
    ('paper', (96, 32), {}, (1, 12, 6)),
    ('paper', (255, 32), {}, (1, 31, 15)),
    ('paper', (256, 32), {}, (1, 16, 16)),
    ('paper', (1, 32), {}, (1, 1, 1)),
    ('paper', (64, 32), dict(latent_multiplier=.75), (1, 6, 4)),
    ('paper', (64, 32), dict(squeeze_ratio=8, blocks=4), (1, 4, 8)),
    ('paper', (64, 32), dict(kernel_size=3, fusion='joint'), (1, 4, 4)),  # C / L_k = 16
    ('paper', (64, 64), dict(kernel_size=3, groups=64), (1, 4, 4)),  # L_k
    ('mobilenet', (96, 24), dict(blocks=2), (1, 6, 9)),  # s is that of one block
])
def test_sizes(variant, channels, options, expected):
    layer = DCDConv2d(*channels, **{'kernel_size': 1, **options}, variant=variant)
    assert sizes(layer) == expected
    assert layer.fc[0].weight.shape == (expected[2], channels[0] * expected[0]**2)


def test_coefficients_are_as_announced():
    scale, phi = make_layer(variant='paper', blocks=2).compute_coefficients(make_input())
    assert scale.shape == (3, 6) and phi.shape == (3, 2, 2, 2)
    scale, phi = make_layer(variant='paper', fusion='joint').compute_coefficients(make_input())
    assert phi.shape == (3, 1, 2, 2 * 4)
    assert make_layer(fusion=None).compute_coefficients(make_input())[1] is None
    assert make_layer(channel_attention=False).compute_coefficients(make_input())[0] is None


def test_without_dynamic_parts_it_is_an_ordinary_convolution():
    layer, x = make_layer(fusion=None, channel_attention=False), make_input()
    assert set(dict(layer.named_parameters())) == {'conv.weight', 'bias'}
    assert_agree(layer(x), F.conv2d(x, layer.conv.weight, layer.bias))


@pytest.mark.parametrize(('norm_cfg', 'kind'), [
    (dict(type='BN', eps=.1), nn.BatchNorm2d), (dict(type='SyncBN'), nn.SyncBatchNorm),
    (dict(type='GN', num_groups=1), nn.GroupNorm), (None, None)], ids=str)
def test_norms(norm_cfg, kind):
    layer = DCDConv2d(16, 8, 1, norm_cfg=norm_cfg).eval()
    norms = [layer.bn1, layer.bn2]
    assert norms == [None, None] if kind is None else all(isinstance(norm, kind) for norm in norms)
    assert layer(torch.randn(2, 16, 5, 3)).isfinite().all()
    assert all(norm.eps == norm_cfg.get('eps', 1e-5) for norm in norms if norm is not None)


def test_extra_repr():
    assert DCDConv2d(8, 6, 3).extra_repr() == "8, 6, kernel_size=(3, 3), stride=(1, 1), variant='bottleneck'"
    layer = DCDConv2d(8, 6, 3, 2, 1, bias=False, variant='paper', channel_attention=False, fusion='joint', blocks=2)
    assert layer.extra_repr() == (
        "8, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False, variant='paper', "
        "channel_attention=False, fusion='joint', blocks=2")


@pytest.mark.parametrize(('name', 'values'), [
    ('in_channels', (0, -4, 8., True)),
    ('kernel_size', (0, 2, (3, 4))),
    ('padding', (-1, 'full')),
    ('variant', ('resnet', None, ['paper'])),
    ('squeeze_ratio', (0, -1, 1 / 16, True, None)),
    ('channel_attention', (1, None, 'yes')),
    ('fusion', ('spatial', 1, ['channel'], 'joint')),
    ('latent_multiplier', (0, -1, math.nan, math.inf, '1', True, None)),
    ('blocks', (0, 1.5, True, 4, None)),
    ('norm_cfg', ('BN', {}, dict(type='LN'), dict(type='BN1d'), dict(type='GN', num_groups=64))),
])
def test_bad_arguments_are_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf'\b{name}\b'):
            pytest.fail(f'{name}={value!r} was taken: {DCDConv2d(**{**SMALL, name: value})}')


@pytest.mark.parametrize(('options', 'words'), [
    (dict(blocks=3), 'in_channels must be divisible by blocks'),
    (dict(blocks=4), 'out_channels must be divisible by blocks'),
    (dict(fusion='joint'), "needs variant='paper'"),
    (dict(fusion='joint', variant='paper', kernel_size=1), 'kernel_size must have more than one element'),
    (dict(variant='paper', out_channels=8, groups=8, kernel_size=1), 'kernel_size must have more than one element'),
    (dict(variant='paper', out_channels=8, groups=8, blocks=2), 'blocks must be 1 in a depthwise'),
])
def test_arguments_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DCDConv2d(**{**SMALL, **options})


OPTIONS = st.fixed_dictionaries(dict(
    in_channels=st.integers(0, 12), out_channels=st.integers(0, 12), kernel_size=st.integers(0, 4),
    stride=st.integers(0, 3), padding=st.integers(-1, 3), dilation=st.integers(0, 2), groups=st.integers(0, 4),
    bias=st.booleans(), variant=st.sampled_from(sorted(VARIANTS)), squeeze_ratio=st.integers(0, 20),
    channel_attention=st.booleans(), fusion=st.sampled_from(FUSIONS), latent_multiplier=st.floats(-.5, 3),
    blocks=st.integers(0, 3)))


def is_valid(o: dict) -> bool:
    """What the docstring of the layer allows."""
    if min(o[name] for name in ('in_channels', 'out_channels', 'kernel_size', 'stride', 'dilation', 'groups',
                                'squeeze_ratio', 'blocks')) < 1 or o['padding'] < 0 or not o['latent_multiplier'] > 0:
        return False
    if any(o[name] % o[divisor] for name in ('in_channels', 'out_channels') for divisor in ('groups', 'blocks')):
        return False
    if o['fusion'] is None:
        return True
    if o['variant'] == 'paper' and o['in_channels'] == o['out_channels'] == o['groups'] > 1:
        return o['blocks'] == 1 and o['kernel_size'] > 1
    if o['fusion'] == 'joint':
        return o['variant'] == 'paper' and o['kernel_size'] > 1
    return o['kernel_size'] % 2 == 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(OPTIONS)
def test_valid_arguments_work_and_others_are_refused(options):
    if not is_valid(options):
        with pytest.raises(ValueError, match='must|needs'):
            DCDConv2d(**options)
        return
    layer = DCDConv2d(**options)
    x = torch.randn(2, options['in_channels'], 8, 7)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a single pooled value a channel
        y = layer(x)
    conv = nn.Conv2d(**{name: options[name] for name in CONV if name in options})
    assert y.shape == conv(x).shape and y.isfinite().all()


# Initialisation.


def assert_kaiming(weight: Tensor, fan_out: int) -> None:
    standard, tolerance = weight.detach() / math.sqrt(2 / fan_out), 5 / math.sqrt(weight.numel())
    assert abs(standard.std() - 1) < tolerance and abs(standard.mean()) < tolerance


def test_initialisation():
    torch.manual_seed(0)
    layer = DCDConv2d(64, 96, 3, variant='basic')
    drawn = []
    for _ in range(2):
        drawn.append({name: parameter.detach().clone() for name, parameter in layer.named_parameters()})
        for name, value in drawn[-1].items():
            if name == 'bias':
                assert not value.any()
            elif value.dim() == 4:
                assert_kaiming(value, len(value) * value[0, 0].numel())
            elif value.dim() == 2:
                bound = 1 / math.sqrt(value.shape[1])
                assert .9 * bound < value.abs().max() <= bound, name
        nn.init.ones_(layer.bias)
        layer.init_weights()
    same = {name for name, value in drawn[0].items() if torch.equal(value, drawn[1][name])}
    assert same == {name for name in drawn[0] if name == 'bias' or 'bn' in name}


class Parent(BaseModule):

    def __init__(self, init_cfg: dict) -> None:
        super().__init__(init_cfg)
        self.dynamic = DCDConv2d(64, 32, 3)
        self.static = nn.Conv2d(8, 6, 3)


def test_init_cfg_of_a_parent_leaves_the_layer_alone():
    cfg = dict(type='Constant', val=7, bias=7, layer=['Conv2d', 'Linear'])
    parent = Parent(cfg)
    before = copy.deepcopy(parent.state_dict())
    initialize(parent, cfg)
    changed = {name for name, value in parent.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {'static.weight', 'static.bias'}
    parent.init_weights()
    assert_kaiming(parent.dynamic.conv.weight, 32 * 9)


# OpenMMLab builds it.


def test_build_conv_layer():
    layer = build_conv_layer(dict(type='DCDConv2d', variant='basic'), 8, 6, 3, padding=1, bias=False)
    assert isinstance(layer, DCDConv2d) and layer.variant == 'basic' and layer.bias is None


def test_conv_module():
    module = ConvModule(8, 6, 3, padding=1, conv_cfg=dict(type='DCDConv2d', variant='paper'), norm_cfg=dict(type='BN'))
    assert isinstance(module.conv, DCDConv2d) and module.conv.variant == 'paper' and module.conv.bias is None
    module.init_weights()
    assert_kaiming(module.conv.conv.weight, 6 * 9)
    x = torch.randn(2, 8, 5, 7)
    y = module.eval()(x)
    torch.testing.assert_close(y, module.norm(module.conv(x)).relu())
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


# Batches of one and of none.


def statistics(layer: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in layer.named_buffers()}


def test_a_single_value_in_training_uses_the_running_statistics():
    layer, x = make_layer(kernel_size=1), make_input(1, size=(1, 1))
    with pytest.warns(UserWarning, match='got a single sample'):
        before, y = statistics(layer.train()), layer(x)
    assert all(torch.equal(value, before[name]) for name, value in statistics(layer).items())
    assert_agree(y, layer.eval()(x))


@pytest.mark.filterwarnings('error')
def test_a_single_sample_of_several_positions_has_statistics():
    layer = make_layer().train()
    before = statistics(layer)
    layer(make_input(1))
    assert not any(torch.equal(value, before[name]) for name, value in statistics(layer).items())


KINDS = [*(dict(variant=variant) for variant in RELEASED), dict(variant='paper'), dict(variant='paper', fusion='joint'),
         dict(variant='paper', blocks=2), dict(variant='paper', out_channels=8, groups=8), dict(fusion=None)]


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('options', KINDS, ids=str)
def test_an_empty_batch(options, training):
    layer = make_layer(stride=2, padding=1, **options).train(training)
    before, x = statistics(layer), make_input(0).requires_grad_()
    y = layer(x)
    assert y.shape == (0, layer.out_channels, 4, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in statistics(layer).items())


# Copies, types, devices, memory formats, compilation.


def through_state_dict(layer: DCDConv2d) -> DCDConv2d:
    other = DCDConv2d(**SMALL, variant=layer.variant).double()
    other.load_state_dict(layer.state_dict(), strict=True)
    return other


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('make_copy', [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)),
                                       through_state_dict], ids=['deepcopy', 'pickle', 'state_dict'])
def test_copies_are_equal_and_independent(make_copy, variant):
    layer, x = make_layer(variant=variant).eval(), make_input()
    other, expected = make_copy(layer).eval(), layer(x)
    assert torch.equal(other(x), expected)
    with torch.no_grad():
        for tensor in layer.parameters():
            tensor.add_(1)
    assert torch.equal(other(x), expected) and not torch.equal(layer(x), expected)


def test_converted_to_sync_batch_norm():
    layer, x = make_layer().eval(), make_input()
    expected = layer(x)
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(layer).eval()  # in torch 2.1 the new norms are in train mode
    assert isinstance(layer.bn1, nn.SyncBatchNorm) and isinstance(layer.bn2, nn.SyncBatchNorm)
    assert_agree(layer(x), expected)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('options', KINDS, ids=str)
def test_bfloat16_and_autocast(options, training):
    layer, x = make_layer(padding=1, **options).float().train(training), make_input().float()
    expected = layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        actual = layer(x)
    actual.float().square().sum().backward()
    assert actual.dtype == torch.bfloat16
    assert (actual - expected).abs().max() < .05 * expected.abs().max()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    assert (layer.bfloat16()(x.bfloat16()) - expected).abs().max() < .05 * expected.abs().max()


@pytest.mark.parametrize('dtype', [None, torch.float64])
@pytest.mark.parametrize('device', [None, 'meta', torch.device('cpu')])
def test_device_and_dtype(device, dtype):
    layer = DCDConv2d(**SMALL, device=device, dtype=dtype)
    assert {(tensor.device.type, tensor.dtype) for tensor in layer.parameters()} == {
        ('meta' if device == 'meta' else 'cpu', dtype or torch.float32)}
    x = torch.empty(2, 8, 5, 5, device=device, dtype=dtype)
    assert layer(x).shape == (2, 6, 3, 3) and layer(x).device == x.device


@pytest.mark.parametrize('options', KINDS, ids=str)
def test_channels_last(options):
    """Of input and layer: the same numbers, in the format of an ordinary convolution's."""
    layer, x = make_layer(padding=1, **options).float(), make_input().float()
    expected = layer(x)
    assert expected.is_contiguous()
    layer.to(memory_format=torch.channels_last)
    actual = layer(x.contiguous(memory_format=torch.channels_last))
    assert actual.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual, expected)


@needs_one_graph
@pytest.mark.parametrize('options', KINDS, ids=str)
def test_compiled_in_one_graph(options):
    layer, x, results = make_layer(padding=1, **options), make_input(), []
    for call in (layer, torch.compile(layer, fullgraph=True, backend='aot_eager')):
        y = call(x)
        results.append([y, *torch.autograd.grad(y.sum(), list(layer.parameters()))])
    for actual, expected in zip(*results):
        assert_agree(actual, expected, tolerance=1e-8)

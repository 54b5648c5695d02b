"""dynamicize replaces the convolutions that it is asked for and that it can, and keeps all else as it was."""
from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from dynconv_mm import DCDC2d, Involution2d, ODConv2d, dynamicize
from dynconv_mm.conversion import DynamicizeReport

OD = dict(type='ODConv2d', kernel_num=2)
X = torch.linspace(-3, 3, 2 * 3 * 11 * 9).sin().view(2, 3, 11, 9)


class ToyBlock(nn.Module):

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels, 1, norm_cfg=dict(type='BN'))
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class Toy(nn.Module):
    """A stem, two blocks, and a head whose convolution serves two levels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ToyBlock(8) for _ in range(2))
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        shared = nn.Conv2d(8, 5, (3, 1), padding=(2, 0), dilation=(2, 1), padding_mode='reflect', bias=False)
        self.head = nn.ModuleList([shared, shared])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return torch.cat([self.head[0](x).flatten(1), self.head[1](self.up(x)).flatten(1)], 1)


ALL = ('blocks.0.conv1.conv', 'blocks.0.conv2', 'blocks.1.conv1.conv', 'blocks.1.conv2', 'head.0')


def replaced(report: DynamicizeReport) -> tuple[str, ...]:
    return tuple(row.names[0] for row in report.replaced)


# The function.


@pytest.mark.parametrize('op', [
    OD, dict(type=ODConv2d, kernel_num=1, attentions=('channel', )), dict(type='DyConv2d'), dict(type='CondConv2d'),
    dict(type='DCDConv2d'), dict(type='DCDConv2d', variant='paper', fusion=None), dict(type='WEConv2d'),
    dict(type='CGConv2d'), dict(type='WeightNetConv2d')],
    ids=['ODConv2d', 'class', 'DyConv2d', 'CondConv2d', 'DCDConv2d', 'paper', 'WEConv2d', 'CGConv2d',
         'WeightNetConv2d'])
@pytest.mark.parametrize('training', [False, True])
def test_function_is_kept(op, training):
    model = Toy().double().train(training)
    dynamic = copy.deepcopy(model)
    report = dynamicize(dynamic, op)
    assert replaced(report) == ALL
    kind = MODELS.get(op['type']) if isinstance(op['type'], str) else op['type']
    assert all(isinstance(dynamic.get_submodule(name), kind) for name in ALL)
    for temperature in (1., 30.):
        for layer in dynamic.modules():
            if hasattr(layer, 'set_temperature'):
                layer.set_temperature(temperature)
        torch.testing.assert_close(dynamic(X.double()), model(X.double()))


def test_gradients_of_static_parameters_are_kept():
    """Of the mixed kernel: the sum of the kernels' gradients over what the attentions add up to."""
    model, dynamic = Toy().double(), Toy().double()
    dynamicize(dynamic, OD)
    for network in (model, dynamic):
        network(X.double()).square().sum().backward()
    torch.testing.assert_close(dynamic.stem.weight.grad, model.stem.weight.grad)
    kernels = dynamic.head[0].weight.grad
    torch.testing.assert_close(kernels.sum(0) * 8, model.head[0].weight.grad)  # three attentions of 1/2


def test_kernels_part_by_the_noise():
    weights = []
    for noise in (0., 0.1):
        model = Toy()
        dynamicize(model, OD, noise=noise)
        weights.append(model.blocks[0].conv1.conv.weight)
    assert torch.equal(*weights[0]) and not torch.equal(*weights[1])
    torch.testing.assert_close(weights[1].mean(0), weights[0].mean(0))


def test_static_state_dict_loads():
    """Into the dynamic model, as it did into the static one; its own too."""
    source, model = Toy().eval(), Toy().eval()
    nn.init.normal_(source.blocks[1].conv2.weight)
    dynamicize(model, OD)
    for layer in model.modules():
        if isinstance(layer, ODConv2d):
            nn.init.normal_(layer.attention.kernel_fc.weight)
            layer.set_temperature(7.)
    model.load_state_dict(source.state_dict(), strict=True)
    torch.testing.assert_close(model(X), source(X))
    assert float(model.blocks[0].conv2.temperature) == 7
    own = {name: value.clone() for name, value in model.state_dict().items()}
    nn.init.normal_(own['blocks.0.conv1.conv.attention.kernel_fc.weight'])
    model.load_state_dict(own, strict=True)
    torch.testing.assert_close(dict(model.state_dict()), own)


@pytest.mark.parametrize('change', [lambda state: state.update({'head.0.weight': torch.zeros(5, 8, 1, 3)}),
                                    lambda state: state.pop('blocks.0.conv2.bias')], ids=['shape', 'bias'])
def test_state_dict_of_another_model(change):
    model, state = Toy(), Toy().state_dict()
    dynamicize(model, OD)
    change(state)
    with pytest.raises(RuntimeError, match='size mismatch|Missing key'):
        model.load_state_dict(state)


def test_model_can_be_copied():
    model = Toy().eval()
    dynamicize(model, OD)
    expected = model(X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(X), expected)
        other.load_state_dict(Toy().state_dict(), strict=True)


# What is taken over.


def test_shared_module_is_replaced_once():
    model = Toy()
    report = dynamicize(model, OD)
    assert report.replaced[-1].names == ('head.0', 'head.1')
    assert model.head[0] is model.head[1]


def test_dtype_device_mode_and_gradients():
    with torch.device('meta'):
        model = Toy().to(torch.bfloat16)
    model.blocks[0].conv2.weight.requires_grad_(False)
    model.blocks[0].conv2.eval()
    dynamicize(model, OD)
    frozen, other = model.blocks[0].conv2, model.blocks[1].conv2
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert not any(module.training for module in frozen.modules()) and other.attention.bn.training
    assert [name for name, parameter in frozen.named_parameters() if parameter.requires_grad] == ['bias']
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_memory_format():
    model = Toy().to(memory_format=torch.channels_last)
    dynamicize(model, OD, include='head')
    assert model.head[0].weight.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('conv', [
    MMCVConv2d(4, 6, 3, stride=2), Conv2dAdaptivePadding(4, 6, 3), Conv2dAdaptivePadding(4, 6, 2, dilation=3),
    nn.Conv2d(4, 6, (2, 3), padding='same', padding_mode='circular'), nn.Conv2d(4, 6, 3, padding='valid', groups=2),
], ids=['mmcv', 'adaptive', 'adaptive even', 'same', 'valid'])
def test_kinds_of_padding(conv):
    model, x = nn.Sequential(conv), torch.randn(2, 4, 9, 7)
    expected = model(x)
    dynamicize(model.eval(), OD)
    torch.testing.assert_close(model(x), expected)


def test_efficient_evaluation_of_mmcv_is_turned_off():
    """It reads the weight of the convolution."""
    block = ConvModule(4, 4, 3, norm_cfg=dict(type='BN'), efficient_conv_bn_eval=True)
    model = nn.Sequential(block).eval()
    nn.init.uniform_(block.norm.running_var, 0.5, 2)
    x = torch.randn(2, 4, 5, 5)
    expected = model(x)
    dynamicize(model, OD)
    torch.testing.assert_close(model(x), expected)


# Which convolutions.


@pytest.mark.parametrize(('arguments', 'expected'), [
    (dict(include='blocks'), ALL[:4]),
    (dict(include='blocks.1'), ALL[2:4]),
    (dict(include='blocks.*.conv2'), (ALL[1], ALL[3])),
    (dict(include='*conv?'), ALL[:4]),
    (dict(include=['head.1', 'blocks.0.conv2']), (ALL[1], ALL[4])),
    (dict(include=re.compile(r'conv2$')), (ALL[1], ALL[3])),
    (dict(include=re.compile(r'^head')), ALL[4:]),
    (dict(exclude=('blocks.0', re.compile('head'))), ALL[2:4]),
    (dict(include='blocks', exclude='*.conv'), (ALL[1], ALL[3])),
    (dict(include='stem'), ('stem', )),
    (dict(include=('stem', 'head')), ('stem', ALL[4])),
    (dict(include='*'), ALL),
    (dict(placement='1x1'), (ALL[0], ALL[2])),
    (dict(placement='3x3'), (ALL[1], ALL[3])),
    (dict(placement='3x1'), (ALL[4], )),
    (dict(placement='last_1_blocks'), ALL[2:4]),
    (dict(placement='last_2_blocks', exclude='*.conv2'), (ALL[0], ALL[2])),
], ids=str)
def test_selection(arguments, expected):
    model = Toy()
    static = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    report = dynamicize(model, OD, **arguments)
    assert replaced(report) == expected
    names = {name for row in report.replaced for name in row.names}
    assert names | set(report.kept) == {'stem', 'up', 'head.1', *ALL}
    assert all(model.get_submodule(name) is module for name, module in static.items() if name not in names)


def hooked(conv: nn.Conv2d) -> nn.Conv2d:
    conv.register_forward_hook(lambda *_: None)
    return conv


class Doubled(nn.Conv2d):

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


@pytest.mark.parametrize(('make', 'reason'), [
    (lambda: spectral_norm(nn.Conv2d(4, 4, 3)), 'is parametrised'),
    (lambda: parametrizations.orthogonal(nn.Conv2d(4, 4, 3)), 'is parametrised'),
    (lambda: prune.l1_unstructured(nn.Conv2d(4, 4, 3), 'weight', 1), 'is parametrised'),
    (lambda: hooked(nn.Conv2d(4, 4, 3)), 'has hooks'),
    (lambda: Doubled(4, 4, 3), 'computes in a way of its own (Doubled)'),
    (lambda: Conv2dAdaptivePadding(4, 4, 3, stride=2), 'pads by the size of its input'),
    (lambda: nn.ConvTranspose2d(4, 4, 3), 'is transposed'),
    (lambda: nn.Conv1d(4, 4, 3), 'is not two-dimensional'),
    (lambda: ODConv2d(4, 4, 3), 'is dynamic already'),
], ids=['spectral_norm', 'parametrization', 'pruned', 'hook', 'subclass', 'adaptive', 'transposed', '1d', 'dynamic'])
def test_what_cannot_be_replaced(make, reason):
    model = nn.Sequential(nn.Conv2d(4, 4, 1), make())
    untouched = model[1]
    report = dynamicize(model, OD)
    assert replaced(report) == ('0', ) and report.kept['1'].startswith(reason)
    assert model[1] is untouched


class Merged(nn.Module):
    """A convolution, a block, and a method that might merge what is in it."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.blocks = nn.Sequential(*blocks)


def kernel_of(conv: nn.Conv2d) -> Tensor:
    return conv.weight + 1


class ByItself(Merged):
    def switch_to_deploy(self, test_cfg: dict | None = None) -> None:
        self._merge()

    def _merge(self) -> None:
        self.conv.weight = nn.Parameter(self.conv.weight + 1)


class ByAFunction(Merged):
    @torch.no_grad()
    def reparameterize(self) -> None:
        self.conv.weight.copy_(kernel_of(self.conv))


class Walking(Merged):
    def fuse(self) -> None:
        def fuse_within(module: nn.Module) -> None:
            for child in module.children():
                if hasattr(child, 'reparameterize'):
                    child.reparameterize()
                fuse_within(child)
        fuse_within(self)


class LeavingOut(Merged):
    def fuse(self) -> None:
        self.blocks = None


class Told(Merged):
    def switch_to_deploy(self, test_cfg: dict) -> None:
        self.conv.weight = None


@pytest.mark.parametrize('make, kept', [
    (lambda: ByItself(nn.Conv2d(4, 4, 1)), {
        'conv': 'ByItself.switch_to_deploy', 'blocks.0': 'ByItself.switch_to_deploy'}),
    (lambda: Walking(ByAFunction(), nn.Conv2d(4, 4, 1)), {'blocks.0.conv': 'ByAFunction.reparameterize'}),
    (lambda: ByItself(LeavingOut(), ByAFunction()), {
        'conv': 'ByItself.switch_to_deploy', 'blocks.0.conv': 'ByItself.switch_to_deploy',
        'blocks.1.conv': 'ByAFunction.reparameterize'}),
    (lambda: LeavingOut(Told()), {}),
], ids=['by itself', 'in a model that walks', 'nearest', 'of another kind'])
def test_who_merges_convolutions(make, kept):
    """The nearest module that does, and none that hands it on, that is told how, or that does something else."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), make())
    report = dynamicize(model, op=OD)
    assert report.kept == {f'1.{name}': f'has its weight read by {how}' for name, how in kept.items()}


def test_shared_weight():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    model[2].weight = model[0].weight
    report = dynamicize(model, OD)
    assert report.kept == dict.fromkeys(('0', '2'), 'shares its weight with another module')


def test_module_held_in_a_list():
    model = Toy()
    model.convs = [model.blocks[0].conv2]
    assert dynamicize(model, OD).kept['blocks.0.conv2'] == 'is held by Toy outside of its modules too'


def test_inside_of_dynamic_layers_stays():
    model = nn.Sequential(Involution2d(16, 16, 3), nn.Conv2d(16, 16, 1))
    report = dynamicize(model, OD)
    assert report.kept == {'0': 'is dynamic already'} and replaced(report) == ('1', )


# Layers that start anew.


@pytest.mark.parametrize(('op', 'kind'), [(dict(type='DCDC2d', group_channels=8), DCDC2d),
                                          (dict(type='Involution2d', kernel_size=7, group_channels=4), Involution2d)])
def test_size_keeping_layers(op, kind):
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
                          nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 4, 1))
    x = torch.randn(2, 8, 9, 12)
    shape = model(x).shape
    report = dynamicize(model, op, keep_function=False)
    assert [type(module) for module in model] == [kind, kind, nn.Conv2d, nn.Conv2d, nn.Conv2d]
    assert [report.kept[name].partition(':')[0] for name in '234'] == [f'{kind.__name__} does not fit'] * 3
    assert model(x).shape == shape


def test_new_layers_keep_nothing():
    model = Toy()
    dynamicize(model, OD, keep_function=False)
    assert model.head[0].attention.channel_fc.weight.any()
    with pytest.raises(RuntimeError, match='size mismatch'):
        model.load_state_dict(Toy().state_dict())


# The report.


def test_report():
    model = Toy()
    before = sum(parameter.numel() for parameter in model.parameters())
    report = dynamicize(model, OD, exclude='blocks.0')
    after = sum(parameter.numel() for parameter in model.parameters())
    assert (report.params_before, report.params_after) == (before, after)
    assert sum(row.params_after - row.params_before for row in report.replaced) == after - before
    text = str(report)
    for words in ('3 convolutions replaced', '4 kept', 'head.0 = head.1', 'is transposed', 'is in exclude',
                  'blocks.0.conv1.conv, blocks.0.conv2', f'{before:,} before, {after:,} after'):
        assert words in text
    assert all(len(line) <= 120 for line in text.splitlines())


# Bad input.


@pytest.mark.parametrize(('arguments', 'words'), [
    (dict(op='ODConv2d'), 'op must be a dict with a type'),
    (dict(op=dict(kernel_num=4)), 'op must be a dict with a type'),
    (dict(op=dict(type='ODConv')), "op must have a type out of .*did you mean 'ODConv2d'"),
    (dict(op=dict(type=nn.Conv2d)), 'op must have a type out of'),
    (dict(op=dict(type='ODConv2d', kernels=4)), 'op has kernels, which ODConv2d does not take; it takes kernel_num'),
    (dict(op=dict(type='ODConv2d', kernel_num=0)), '(?s)no convolution.*kernel_num must be a positive int'),
    (dict(op=dict(type='ODConv2d', stride=2)), 'op may not have stride'),
    (dict(op=dict(type='ODConv2d', kernel_size=5)), 'op may not have kernel_size'),
    (dict(op=dict(type='CondConv2d', routing=False)), 'routing=True.*CondConvResNet'),
    (dict(op=dict(type='WeightNetConv2d', routing=False)), 'routing=True.*WeightNetResNet'),
    (dict(op=dict(type='Involution2d')), 'op Involution2d cannot compute.*keep_function=False'),
    (dict(op=dict(type='DCDC2d')), 'op DCDC2d cannot compute.*keep_function=False'),
    (dict(op=dict(type='DDFConv2d')), 'op DDFConv2d cannot compute.*keep_function=False'),
    *((dict(op=dict(type=name)), f'op {name} cannot compute.*keep_function=False')
      for name in ('PairwiseSelfAttention2d', 'LocalRelation2d', 'StandAloneSelfAttention2d', 'LSConv2d')),
    (dict(include='block'), "include has 'block', which matches no convolution; close names are blocks"),
    (dict(exclude=['head', 'hea']), "exclude has 'hea', which matches no convolution; close names are head"),
    (dict(include=re.compile('xyz')), "include has 'xyz', which .*convolutions are stem, blocks.0.conv1.conv, "),
    (dict(include=3), 'include must be a glob'),
    (dict(exclude=['head', 3]), 'exclude must be a glob'),
    (dict(include=[]), 'include is empty'),
    (dict(include='up'), '(?s)no convolution of the Toy can be replaced.*is transposed: up'),
    (dict(placement='2x'), 'placement must be'),
    (dict(placement='last_3_blocks'), "placement 'last_3_blocks' needs as many residual blocks, but the model has 2"),
    (dict(placement='7x7'), '(?s)no convolution.*is not 7x7'),
    (dict(keep_function='yes'), 'keep_function must be True or False'),
    (dict(noise=-1), '^noise must be a number of at least 0, but is -1$'),
], ids=lambda value: value if isinstance(value, str) else None)
def test_bad_arguments_leave_the_model_untouched(arguments, words):
    model = Toy()
    modules = dict(model.named_modules(remove_duplicate=False))
    with pytest.raises(ValueError, match=words):
        dynamicize(model, **{'op': OD, **arguments})
    assert all(modules[name] is module for name, module in model.named_modules(remove_duplicate=False))


@pytest.mark.parametrize(('model', 'words'), [
    (nn.Linear(3, 4), 'model, a Linear, has no convolution'),
    (nn.Conv2d(4, 4, 1), 'model is itself a convolution.*torch.nn.Sequential'),
    (dict(type='ResNet'), 'model must be a torch.nn.Module, but is a dict'),
], ids=['no convolution', 'convolution', 'dict'])
def test_bad_model(model, words):
    with pytest.raises(ValueError, match=words):
        dynamicize(model)


def test_twice():
    model = Toy()
    dynamicize(model, OD, include='head')
    assert replaced(dynamicize(model, OD)) == ALL[:4]
    with pytest.raises(ValueError, match='is dynamic already'):
        dynamicize(model, OD)

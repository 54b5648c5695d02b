"""What all backbones do alike: freezing, norms in eval mode, recomputed activations, and whose weights they take."""
import logging
from functools import partial

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.models.backbones import (
    CondConvMobileNetV2,
    CondConvResNet,
    DCDMobileNetV2,
    DCDResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    MobileNetV2,
    ODConvMobileNetV2,
    ODConvResNet,
    ResNet,
    base,
)

SMALL = dict(stem_channels=8, base_channels=8)
NETWORKS = {
    'ResNet': partial(ResNet, depth=18, **SMALL),
    'ResNet v1d': partial(ResNet, depth=50, deep_stem=True, avg_down=True, drop_path_rate=0.5, **SMALL),
    'MobileNetV2': partial(MobileNetV2, widen_factor=0.1),
    'ODConvResNet': partial(ODConvResNet, depth=18, kernel_num=2, **SMALL),
    'ODConvMobileNetV2': partial(ODConvMobileNetV2, widen_factor=0.1, kernel_num=2),
    'DyConvResNet': partial(DyConvResNet, depth=18, kernel_num=2, **SMALL),
    'DyConvMobileNetV2': partial(DyConvMobileNetV2, widen_factor=0.1, kernel_num=2),
    'CondConvResNet': partial(CondConvResNet, depth=18, kernel_num=2, **SMALL),
    'CondConvMobileNetV2': partial(CondConvMobileNetV2, widen_factor=0.1, kernel_num=2),
    'DCDResNet': partial(DCDResNet, depth=18, **SMALL),
    'DCDMobileNetV2': partial(DCDMobileNetV2, widen_factor=0.1),
    'ResNet with plugins': partial(ResNet, depth=50, **SMALL, plugins=[
        dict(cfg=dict(type=kind), position=f'after_conv{number}')
        for number, kind in enumerate(('DynConvECALayer', 'DynConvCBAM', 'DynConvSELayer'), 1)]),
}
RESNET, MOBILENET = [f'layer{i}' for i in range(1, 5)], [*(f'layer{i}' for i in range(1, 8)), 'conv2']
STAGES = {name: MOBILENET if 'Mobile' in name else RESNET for name in NETWORKS}
BLOCKS = {name: 17 if 'Mobile' in name else 16 if name in ('ResNet v1d', 'ResNet with plugins') else 8
          for name in NETWORKS}


@pytest.fixture(params=NETWORKS)
def name(request) -> str:
    return request.param


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


# Frozen stages and norms in eval mode.


@pytest.mark.parametrize(('name', 'frozen_stages'), [
    (name, frozen) for name in NETWORKS for frozen in range(-1, len(STAGES[name]) + 1)])
def test_frozen_stages(name, frozen_stages):
    model = NETWORKS[name](frozen_stages=frozen_stages)
    free = set(STAGES[name][max(frozen_stages, 0):]) | (set() if frozen_stages >= 0 else {'stem', 'conv1', 'bn1'})

    def check():
        for parameter_name, parameter in model.named_parameters():
            assert parameter.requires_grad == (parameter_name.partition('.')[0] in free), parameter_name
        for norm_name, norm in batch_norms(model).items():
            assert norm.training == (norm_name.partition('.')[0] in free), norm_name

    check()
    assert model.eval().train() is model and model.training
    check()
    assert not any(module.training for module in model.eval().modules())
    if 'ODConv' in name:
        assert any('attention' in norm_name for norm_name in batch_norms(model))


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval(name, norm_eval):
    model = NETWORKS[name](norm_eval=norm_eval).train()
    assert {norm.training for norm in batch_norms(model).values()} == {not norm_eval}
    before = {key: value.clone() for key, value in model.state_dict().items() if 'running' in key}
    maps = model(torch.randn(2, 3, 64, 64))
    sum(x.mean() for x in maps).backward()
    after = model.state_dict()
    assert [torch.equal(before[key], after[key]) for key in before] == [norm_eval] * len(before)
    assert all(parameter.grad is not None for parameter in model.parameters())


# Recomputed activations.


def test_with_cp(name, run_network, monkeypatch):
    plain, thrifty = NETWORKS[name](), NETWORKS[name](with_cp=True)
    thrifty.load_state_dict(plain.state_dict())
    calls, checkpoint = [], base.checkpoint
    monkeypatch.setattr(base, 'checkpoint', lambda *args, **kwargs: calls.append(args) or checkpoint(*args, **kwargs))
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(run_network(plain, image), run_network(thrifty, image))
    assert len(calls) == BLOCKS[name]


def test_with_cp_spares_what_needs_no_gradient(monkeypatch):
    monkeypatch.setattr(base, 'checkpoint', lambda *_, **__: pytest.fail('recomputes a frozen network'))
    with torch.no_grad():
        NETWORKS['ResNet'](with_cp=True)(torch.randn(2, 3, 32, 32))
    NETWORKS['ResNet'](with_cp=True, frozen_stages=4)(torch.randn(2, 3, 32, 32))


# Checkpoints to start from.


class Classifier(nn.Module):

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(4, 2)


def load_bare_strictly(model, source, file):
    model.load_state_dict(source.state_dict())


def load_bare_loosely(model, source, file):
    model.load_state_dict(source.state_dict(), strict=False)


def load_whole_with_torch(model, source, file):
    Classifier(model).load_state_dict(Classifier(source).state_dict(), strict=False)


def load_bare_with_mmengine(model, source, file):
    torch.save(source.state_dict(), file)
    load_checkpoint(model, file, strict=False)


def load_whole_with_mmengine(model, source, file):
    torch.save(dict(state_dict=Classifier(source).state_dict(), meta={}), file)
    load_checkpoint(Classifier(model), file, strict=False)


def load_by_init_cfg(model, source, file):
    torch.save(dict(state_dict=Classifier(source).state_dict()), file)
    model.init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    model.init_weights()


class Detector(BaseModule):

    def __init__(self, backbone: nn.Module, init_cfg: dict) -> None:
        super().__init__(init_cfg)
        self.backbone = backbone
        self.head = nn.Linear(4, 2)


def load_by_init_cfg_of_the_whole(model, source, file):
    torch.save(dict(state_dict=Classifier(source).state_dict()), file)
    Detector(model, dict(type='Pretrained', checkpoint=str(file))).init_weights()


FILE_LOADERS = [load_by_init_cfg, load_by_init_cfg_of_the_whole]  # of another architecture, they refuse
LOADERS = [load_bare_strictly, load_bare_loosely, load_whole_with_torch, load_bare_with_mmengine,
           load_whole_with_mmengine, *FILE_LOADERS]


@pytest.mark.one_at_a_time('name', 'load')
@pytest.mark.parametrize('load', LOADERS)
def test_own_weights_load(tmp_path, name, load):
    source, model = NETWORKS[name](), NETWORKS[name]()
    for tensor in source.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 1)
    load(model, source, str(tmp_path / 'source.pth'))
    torch.testing.assert_close(dict(model.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


# Training on from weights that were never loaded.


@pytest.fixture
def warnings_of(monkeypatch):
    """What the log warns of while a function runs."""

    def collect(function, *args) -> list[str]:
        said = []
        with monkeypatch.context() as patch:
            patch.setattr(base, 'print_log', lambda message, logger, level: said.append((message, logger, level)))
            function(*args)
        assert all(entry[1:] == ('current', logging.WARNING) for entry in said)
        return [message for message, *_ in said]

    return collect


@pytest.mark.one_at_a_time('name', 'keys')
@pytest.mark.parametrize('keys, words', [
    (dict(frozen_stages=0), ['frozen_stages=0 keeps its stem at random']),
    (dict(frozen_stages=1), ['frozen_stages=1 keeps its stem and its first stage at random']),
    (dict(frozen_stages=2), ['frozen_stages=2 keeps its stem and its first 2 stages at random']),
    (dict(norm_eval=True), ['norm_eval=True keeps its', 'batch norms at their initial statistics']),
    (dict(frozen_stages=1, norm_eval=True), ['frozen_stages=1', 'norm_eval=True']),
], ids=str)
def test_what_was_never_loaded_but_is_kept_is_warned_of_once(name, keys, words, warnings_of):
    model = NETWORKS[name](**keys)
    assert not warnings_of(model.eval)
    said, = warnings_of(model.train)
    assert all(word in said for word in (type(model).__name__, 'frozen_stages=-1 and norm_eval=False', *words))
    assert not warnings_of(model.train)


def test_what_learns_is_not_warned_of(name, warnings_of):
    assert not warnings_of(NETWORKS[name]().train)
    without_norms = ResNet(18, norm_cfg=dict(type='GN', num_groups=4), norm_eval=True, **SMALL)
    assert not warnings_of(without_norms.train)


@pytest.mark.parametrize('load', LOADERS)
def test_what_was_loaded_is_not_warned_of(tmp_path, load, warnings_of):
    source, model = (NETWORKS['ODConvResNet'](frozen_stages=1, norm_eval=True) for _ in range(2))
    load(model, source, str(tmp_path / 'source.pth'))
    assert not warnings_of(model.train)


def test_a_part_that_was_loaded_is_warned_of(warnings_of):
    model = Classifier(NETWORKS['ODConvResNet'](frozen_stages=1))
    model.load_state_dict({key: value for key, value in model.state_dict().items() if 'layer4' not in key},
                          strict=False)
    assert len(warnings_of(model.train)) == 1


ODCONV_R18 = NETWORKS['ODConvResNet']
PAIRS = {  # a network, another whose weights it is given, and what does not fit
    '1x in 4x': (partial(ODCONV_R18, kernel_num=4), partial(ODCONV_R18, kernel_num=1),
                 'layer1.0.conv1.weight: [1, 8, 8, 3, 3] in the checkpoint, [4, 8, 8, 3, 3] here; '
                 'layer1.0.conv1.attention.kernel_fc.weight: missing'),
    'r18 in r34': (partial(ODCONV_R18, depth=34), ODCONV_R18, 'layer1.2.conv1.weight: missing'),
    'static in dynamic': (ODCONV_R18, NETWORKS['ResNet'],
                          'layer1.0.conv1.weight: [8, 8, 3, 3] in the checkpoint, [2, 8, 8, 3, 3] here'),
    'mobilenet in resnet': (ODCONV_R18, NETWORKS['ODConvMobileNetV2'], 'conv1.weight: missing'),
    '4x in 1x': (partial(ODCONV_R18, kernel_num=1), partial(ODCONV_R18, kernel_num=4),
                 '[4, 8, 8, 3, 3] in the checkpoint, [1, 8, 8, 3, 3] here'),
    'dynamic in static': (NETWORKS['ResNet'], ODCONV_R18,
                          'layer1.0.conv1.weight: [2, 8, 8, 3, 3] in the checkpoint, [8, 8, 3, 3] here'),
    'resnet in mobilenet': (NETWORKS['ODConvMobileNetV2'], ODCONV_R18, 'conv1.conv.weight: missing'),
    'static in dynamic mobilenet': (NETWORKS['ODConvMobileNetV2'], NETWORKS['MobileNetV2'],
                                    'layer1.0.conv.0.conv.weight: [8, 1, 3, 3] in the checkpoint'),
    'width': (partial(ODCONV_R18, base_channels=16), ODCONV_R18, '137 of its 239 parameters are'),
    'hidden width': (partial(ODCONV_R18, min_channels=32), ODCONV_R18,
                     'layer1.0.conv1.attention.fc.weight: [16, 8, 1, 1] in the checkpoint'),
    'shared in unshared': (partial(ODCONV_R18, share_attention=False), ODCONV_R18,
                           'layer1.0.conv1.attention.channel_fc.weight: [8, 16, 1, 1] in the checkpoint'),
}


@pytest.mark.parametrize(('pair', 'load'), [(pair, load) for number, pair in enumerate(PAIRS)
                                            for load in FILE_LOADERS[:2 if number < 4 else 1]])
def test_other_architectures_are_refused(tmp_path, pair, load):
    model, source, misfit = PAIRS[pair]
    model = model()
    with pytest.raises(RuntimeError) as refused:
        load(model, source(), str(tmp_path / 'source.pth'))
    for words in (f'does not fit this {type(model).__name__}', misfit, 'use the config that it was trained with',
                  'tools/model_converters/warm_start.py'):
        assert words in str(refused.value)


@pytest.mark.parametrize('load', [
    lambda model, file: model.load_state_dict(torch.load(file), strict=False),
    lambda model, file: load_checkpoint(model, file, strict=False),
], ids=['torch', 'mmengine'])
def test_a_part_of_the_weights_loads(tmp_path, name, load):
    """As into torch's modules, where it was asked for."""
    model = Classifier(NETWORKS[name]())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    part = {key: torch.rand(value.shape).to(value.dtype) for key, value in before.items() if '.layer1.' in key}
    torch.save(part, tmp_path / 'part.pth')
    load(model, str(tmp_path / 'part.pth'))
    torch.testing.assert_close(dict(model.state_dict()), {**before, **part}, rtol=0, atol=0)


def test_a_part_of_the_weights_is_reported_as_by_torch():
    model = NETWORKS['ResNet']()
    found = model.load_state_dict({'conv1.weight': torch.ones(8, 3, 7, 7), 'other': torch.ones(1)}, strict=False)
    assert found.unexpected_keys == ['other']
    assert set(found.missing_keys) == {
        name for name in model.state_dict() if name != 'conv1.weight' and not name.endswith('num_batches_tracked')}
    with pytest.raises(RuntimeError, match='size mismatch for conv1.weight'):
        model.load_state_dict({'conv1.weight': torch.ones(1)}, strict=False)
    with pytest.raises(RuntimeError, match='Missing key'):
        model.load_state_dict({})


@pytest.mark.parametrize('load_head', [
    lambda model, file: model.load_state_dict(torch.load(file), strict=False),
    lambda model, file: load_checkpoint(model, file, strict=False),
], ids=['torch', 'mmengine'])
def test_a_head_alone_loads(tmp_path, name, load_head):
    head, model = nn.Linear(4, 2), Classifier(NETWORKS[name]())
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    torch.save({f'head.{key}': value for key, value in head.state_dict().items()}, tmp_path / 'head.pth')
    load_head(model, str(tmp_path / 'head.pth'))
    assert torch.equal(model.head.weight, head.weight)
    torch.testing.assert_close(dict(model.backbone.state_dict()), before)


@pytest.mark.parametrize('as_list', [False, True])
def test_missing_checkpoint(name, as_list):
    init_cfg = dict(type='Pretrained', checkpoint='checkpoints/none.pth', prefix='backbone.')
    model = NETWORKS[name](init_cfg=[init_cfg] if as_list else init_cfg)
    with pytest.raises(FileNotFoundError) as missing:
        model.init_weights()
    for words in (type(model).__name__, "'checkpoints/none.pth'", '--cfg-options model.backbone.init_cfg.checkpoint=',
                  'model.backbone.init_cfg=None'):
        assert words in str(missing.value)


@pytest.mark.parametrize('checkpoint', ['torchvision://resnet18', 'https://example.org/r18.pth', 's3://bucket/r18.pth'])
def test_addresses_are_left_to_mmengine(monkeypatch, checkpoint):
    monkeypatch.setattr(BaseModule, 'init_weights', lambda self: None)
    NETWORKS['ResNet'](init_cfg=dict(type='Pretrained', checkpoint=checkpoint)).init_weights()


@pytest.mark.parametrize('name', [name for name in NETWORKS if 'Conv' in name])
def test_init_weights_leaves_dynamic_layers_as_they_initialised_themselves(name):
    model = NETWORKS[name]()
    before = {key: value.clone() for key, value in model.named_parameters()}
    model.init_weights()
    learned = ('attention', 'routing')  # FCs that initialise themselves
    dynamic = {key for key, value in before.items()
               if value.dim() == 5 or 'bn' not in key and any(part in key for part in learned)}
    assert dynamic and all(torch.equal(dict(model.named_parameters())[key], before[key]) for key in dynamic)
    static = {key for key, value in before.items() if value.dim() == 4} - dynamic
    assert static and not any(torch.equal(dict(model.named_parameters())[key], before[key]) for key in static)

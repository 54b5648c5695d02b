"""A config's model made dynamic goes through a real training: pre-trained weights, optimizer, EMA, resume, test."""
from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from dynconv_mm import ODConv2d

pytest.importorskip('mmpretrain.models')
OP = dict(type='ODConv2d', kernel_num=2)
RESNET = dict(depth=18, base_channels=8, stem_channels=8)
IMAGE = torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().view(2, 3, 32, 32)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Threads, a list of what is installed and one of how each parameter was initialised are not worth their time."""
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)
    threads, level = torch.get_num_threads(), MMLogger.get_current_instance().level
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel('ERROR')
    init_default_scope('mmpretrain')
    yield
    torch.set_num_threads(threads)
    MMLogger.get_current_instance().setLevel(level)


@pytest.fixture(scope='module')
def digits() -> list[dict]:
    structures = pytest.importorskip('mmpretrain.structures')
    data = pytest.importorskip('sklearn.datasets').load_digits()
    images = torch.from_numpy(data.images[:16]).float()[:, None].expand(-1, 3, -1, -1)
    images = nn.functional.interpolate(images * 16, size=(32, 32), mode='bilinear')
    return [dict(inputs=image, data_samples=structures.DataSample().set_gt_label(int(label)))
            for image, label in zip(images, data.target)]


@pytest.fixture(scope='module')
def static(tmp_path_factory) -> tuple[nn.Module, str]:
    """A "pre-trained" static classifier, and the checkpoint of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())
        init_default_scope('mmpretrain')
        torch.manual_seed(1)
        model = MODELS.build(dict(classifier(), backbone=dict(RESNET, type='ResNet')))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.02, 0.1)
    path = tmp_path_factory.mktemp('static') / 'static.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return model.eval() or model, str(path)


def classifier(**backbone) -> dict:
    return dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'),
                backbone=dict(RESNET, type='Dynamicized', module='ResNet', op=OP, **backbone),
                data_preprocessor=dict(type='ClsDataPreprocessor', mean=[128] * 3, std=[64] * 3, num_classes=10),
                head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')))


class Start(Hook):
    """Keeps the maps of the model, and of its EMA copy, when training begins, and the optimizer's parameters."""

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        model = runner.model.eval() or runner.model
        copies = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        with torch.no_grad():
            self.maps = [(copy.eval() or copy).extract_feat(IMAGE)[0] for copy in (model, *copies)]
        self.optimized = {id(parameter) for group in runner.optim_wrapper.param_groups for parameter in group['params']}
        self.parameters = {id(parameter) for parameter in model.parameters()}


@pytest.fixture
def run(tmp_path, digits):

    def make(model: dict, name: str = 'run', hooks: tuple = (), **kwargs) -> Runner:
        loader = DataLoader(digits, 8, collate_fn=lambda batch: dict(
            inputs=[sample['inputs'] for sample in batch], data_samples=[sample['data_samples'] for sample in batch]))
        return Runner(
            copy.deepcopy(model), str(tmp_path / name), loader, test_dataloader=loader, test_cfg={},
            test_evaluator=dict(type='Accuracy'), train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)), custom_hooks=[
                dict(type='TemperatureAnnealingHook', epochs=1), dict(type='EpochSeedHook'), *hooks],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)), default_scope='mmpretrain',
            experiment_name=f'{tmp_path.name}-{name}', log_level='ERROR', randomness=dict(seed=0), **kwargs)

    return make


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_training_from_static_weights(run, static):
    """init_cfg → train → save → resume → test, with EMA."""
    reference, path = static
    cfg = classifier(init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'))
    start, ema = Start(), dict(type='EMAHook', update_buffers=True)
    runner = run(cfg, hooks=(start, ema))
    layers = [module for module in runner.model.modules() if isinstance(module, ODConv2d)]
    before = [layer.weight for layer in layers]
    trained = runner.train()
    assert len(layers) == 19
    with torch.no_grad():
        assert_close(start.maps[0], reference.extract_feat(IMAGE)[0])
    assert start.optimized == start.parameters == {id(parameter) for parameter in trained.parameters()}
    assert all(layer.weight is weight for layer, weight in zip(layers, before))

    checkpoint = torch.load(Path(runner.work_dir, 'epoch_2.pth'), weights_only=False)
    assert set(reference.state_dict()) <= set(checkpoint['state_dict'])  # the static model's names
    trained.load_state_dict(checkpoint['state_dict'], strict=True)
    copied = {name[len('module.'):]: value for name, value in checkpoint['ema_state_dict'].items()
              if name.startswith('module.')}
    trained.load_state_dict(copied, strict=True)
    for name, value in checkpoint['state_dict'].items():
        if 'attention' in name and name.endswith('_fc.weight'):
            assert value.any(), name  # they started as 0

    resumed = run(cfg, 'resumed', (ema, ), load_from=f'{runner.work_dir}/epoch_1.pth', resume=True)
    resumed.train()
    repeated = torch.load(Path(resumed.work_dir, 'epoch_2.pth'), weights_only=False)
    for part in ('state_dict', 'ema_state_dict'):
        torch.testing.assert_close(repeated[part], checkpoint[part])

    tester = run(cfg, 'test', load_from=f'{runner.work_dir}/epoch_2.pth')
    assert 0 <= tester.test()['accuracy/top1'] <= 100
    torch.testing.assert_close(dict(tester.model.state_dict()), dict(checkpoint['state_dict']))


def test_static_checkpoint_by_load_from(run, static):
    """Into the model, and into its EMA copy."""
    reference, path = static
    start = Start()
    run(classifier(), hooks=(start, dict(type='EMAHook')), load_from=path).train()
    assert len(start.maps) == 2
    for ours in start.maps:
        with torch.no_grad():
            assert_close(ours, reference.extract_feat(IMAGE)[0])


def test_static_checkpoint_is_tested_as_it_is(run, static):
    reference, path = static
    tester = run(classifier(), load_from=path)
    tester.test()
    with torch.no_grad():
        assert_close(tester.model.extract_feat(IMAGE)[0], reference.extract_feat(IMAGE)[0])


def test_whole_model(static):
    """With the keys of the model beside those of Dynamicized, as in an inherited config."""
    reference, path = static
    cfg = dict(classifier(), type='Dynamicized', module='ImageClassifier', op=OP, include='backbone.layer?',
               backbone=dict(RESNET, type='ResNet'), init_cfg=dict(type='Pretrained', checkpoint=path))
    model = MODELS.build(cfg)
    assert type(model) is type(reference) and model.with_neck
    model.init_weights()
    model.eval()
    with torch.no_grad():
        assert_close(model.extract_feat(IMAGE)[0], reference.extract_feat(IMAGE)[0])
        assert_close(model(IMAGE), reference(IMAGE))


def test_attributes_and_names_are_the_models():
    model = MODELS.build(dict(RESNET, type='Dynamicized', module=dict(type='mmpretrain.ResNet'), op=OP))
    assert type(model).__name__ == 'ResNet' and model.feat_dim == 64
    assert {'layer1.0.conv1.weight', 'layer1.0.conv1.attention.fc.weight', 'conv1.weight'} <= set(model.state_dict())


def test_initialisation_is_the_static_models():
    """Each convolution as its init_cfg says, the last norms 0, and the dynamic ones from that."""
    model = MODELS.build(dict(RESNET, type='Dynamicized', module='ResNet', op=OP, zero_init_residual=True,
                              init_cfg=dict(type='Constant', layer='Conv2d', val=0.25)))
    parameters = list(model.parameters())
    model.init_weights()
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters))
    layer = model.layer2[0].conv1
    mean = layer.weight.mean(0) / 8  # three attentions are 1/2, and that over the kernels averages
    torch.testing.assert_close(mean, torch.full_like(mean, 0.25))
    assert not model.layer2[0].norm2.weight.any()
    assert not vars(model)['init_weights'].statics
    assert not any(hasattr(module, '_params_init_info') for module in model.modules())


def test_without_keeping_the_function():
    torch.manual_seed(0)
    model = MODELS.build(dict(RESNET, type='Dynamicized', module='ResNet', keep_function=False,
                              op=dict(type='DCDC2d', group_channels=8), include='layer*'))
    before = {name: value.clone() for name, value in model.state_dict().items() if '.lsa.' in name}
    model.init_weights()
    assert before and all(bool((model.state_dict()[name] == value).all()) for name, value in before.items())
    assert model(IMAGE)[0].shape == (2, 64, 1, 1)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_copies_initialise_themselves(copied):
    model = MODELS.build(dict(RESNET, type='Dynamicized', module='ResNet', op=OP,
                              init_cfg=dict(type='Constant', layer='Conv2d', val=0.25)))
    other, before = copied(model), model.layer1[0].conv1.weight.clone()
    other.init_weights()
    torch.testing.assert_close(model.layer1[0].conv1.weight, before)
    kernels = other.layer1[0].conv1.weight.mean(0) / 8
    torch.testing.assert_close(kernels, torch.full_like(kernels, 0.25))


def test_distributed_processes_start_alike():
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = MODELS.build(dict(RESNET, type='Dynamicized', module='ResNet', op=OP,
                                  init_cfg=dict(type='Constant', layer='Conv2d', val=0.25)))
        model.init_weights()
        weights.append(model.layer1[0].conv1.weight)
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert not torch.equal(*weights[0])


@pytest.mark.parametrize(('cfg', 'words'), [
    (dict(module=3), 'module must be'), (dict(module={}), 'module must be'),
    (dict(module='RestNet', depth=18), "module must be a dict whose type is registered.*did you mean 'ResNet'"),
    (dict(module='ResNet', depth=18, include='stage1'), "include has 'stage1'.*close names"),
    (dict(module='ResNet', depth=18, op='ODConv2d'), 'op must be a dict'),
])
def test_bad_config(cfg, words):
    with pytest.raises(ValueError, match=words):
        MODELS.build(dict(cfg, type='Dynamicized'))

"""The temperature of every training iteration is that of the formula, whatever trains, wraps or resumes the model."""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from dynconv_mm.engine.hooks import TemperatureAnnealingHook
from dynconv_mm.engine.hooks.temperature_annealing import iterations_per_epoch
from dynconv_mm.layers import KWConv2d, ODConv2d

EPOCH_LENGTH, EPOCHS = 5, 2  # of the data, and over which the temperature falls
TOTAL = EPOCH_LENGTH * EPOCHS
ITERATIONS = TOTAL + 3
EPOCH_LOOP = dict(by_epoch=True, max_epochs=3)
ITERATION_LOOP = dict(by_epoch=False, max_iters=ITERATIONS)


class ToyModel(BaseModel):
    """Writes down at which temperature it computed which loss."""

    def __init__(self, dynamic: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = ODConv2d if dynamic else nn.Conv2d
        self.convs = nn.Sequential(conv(2, 4, 3), nn.ReLU(), conv(4, 3, 1))
        self.seen = []

    def forward(self, image, label, mode='loss'):
        loss = nn.functional.cross_entropy(self.convs(image).mean((2, 3)), label)
        self.seen.append([loss.detach(), *(layer.temperature.clone() for layer in self.convs
                                           if isinstance(layer, ODConv2d))])
        return dict(loss=loss)


def seen(model: ToyModel) -> list[list[float]]:
    """Loss and the temperature of each layer, iteration by iteration."""
    return [[float(value) for value in row] for row in model.seen]


def formula(first: int = 0, last: int = ITERATIONS) -> list[float]:
    """ODConv A.2, with t = iterations done + 1."""
    return [1 + 29 * max(0, (TOTAL - t) / TOTAL) for t in range(first + 1, last + 1)]


def dataloader(infinite: bool = False) -> DataLoader:
    images = torch.randn(2 * EPOCH_LENGTH, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.arange(len(images)) % 3)
    return DataLoader(data, batch_size=2, sampler=InfiniteSampler(data, seed=0) if infinite else None)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Threads and a list of what is installed are not worth their time here."""
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train(tmp_path):
    """Train a model with mmengine's runner; returns the runner."""

    def run(model: nn.Module, loop: dict = EPOCH_LOOP, hook: dict | None = None, hooks: tuple = (),
            name: str = 'run', checkpoints: str = 'iter', log_level: str = 'ERROR', **kwargs) -> Runner:
        hook = dict(type='TemperatureAnnealingHook', epochs=EPOCHS) if hook is None else hook
        runner = Runner(
            model, str(tmp_path / name), dataloader(infinite=not loop['by_epoch']), train_cfg=dict(**loop),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)), custom_hooks=[hook, *hooks],
            default_hooks=dict(logger=dict(type='LoggerHook', interval=1),
                               checkpoint=dict(type='CheckpointHook', by_epoch=checkpoints == 'epoch', interval=1)),
            experiment_name=f'{tmp_path.name}-{name}', log_level=log_level, randomness=dict(seed=0), **kwargs)
        runner.train()
        return runner

    return run


# The formula.


@pytest.mark.parametrize('loop', [EPOCH_LOOP, ITERATION_LOOP], ids=['epochs', 'iterations'])
def test_every_iteration(train, loop):
    model = ToyModel()
    train(model, loop)
    temperatures = [row[1:] for row in seen(model)]
    assert len(temperatures) == (15 if loop is EPOCH_LOOP else ITERATIONS)
    assert temperatures == [pytest.approx([value] * 2) for value in formula(last=len(temperatures))]


@pytest.mark.parametrize(('hook', 'first', 'tenth'), [
    (dict(start=9., end=3., epochs=1), 3 + 6 * 0.8, 3.),
    (dict(epochs=0.5), 1 + 29 * 1.5 / 2.5, 1.),
    (dict(start=5., end=5.), 5., 5.),
    (dict(epochs=10), 1 + 29 * 0.98, 1 + 29 * 0.8),
    (dict(iters=10), 1 + 29 * 0.9, 1.),
])
def test_options(train, hook, first, tenth):
    model = ToyModel()
    train(model, ITERATION_LOOP, dict(type='TemperatureAnnealingHook', **hook))
    assert [seen(model)[i][1] for i in (0, 9)] == pytest.approx([first, tenth])


def test_defaults_are_the_papers():
    hook = TemperatureAnnealingHook()
    assert [hook.temperature_at(i, 5004) for i in (-1, 25019, 50038, 50039, 10**6)] == pytest.approx(
        [30, 15.5, 1 + 29 / 50040, 1, 1])


@pytest.mark.parametrize(('world_size', 'length'), [(1, 5), (2, 3), (8, 1)])
def test_an_infinite_sampler_counts_the_samples_of_all_processes(world_size, length):
    loader = dataloader(infinite=True)
    loader.sampler.world_size = world_size
    assert iterations_per_epoch(loader) == length


# Resuming.


@pytest.fixture(scope='module')
def uninterrupted():
    """What the uninterrupted run of a loop saw, and the folder of its checkpoints."""
    return {}


@pytest.mark.parametrize(('loop', 'checkpoints', 'number', 'done'), [
    *((ITERATION_LOOP, 'iter', done, done) for done in range(1, ITERATIONS)),
    *((EPOCH_LOOP, 'epoch', epoch, epoch * EPOCH_LENGTH) for epoch in (1, 2)),
])
def test_resumed_training_goes_on_exactly(train, uninterrupted, tmp_path_factory, loop, checkpoints, number, done):
    if checkpoints not in uninterrupted:
        model, folder = ToyModel(), tmp_path_factory.mktemp(checkpoints)
        train(model, loop, name=str(folder), checkpoints=checkpoints)
        uninterrupted[checkpoints] = seen(model), folder
    expected, folder = uninterrupted[checkpoints]
    model = ToyModel()
    train(model, loop, load_from=f'{folder}/{checkpoints}_{number}.pth', resume=True, checkpoints=checkpoints)
    assert seen(model) == expected[done:]


def test_training_resumed_within_an_epoch_follows_the_iteration(train):
    whole, model = train(ToyModel(), name='whole'), ToyModel()
    runner = train(model, load_from=f'{whole.work_dir}/iter_3.pth', resume=True)
    assert [row[1] for row in seen(model)] == pytest.approx(formula(first=3, last=runner.iter))


# Copies and wrappers.


class Recorder(Hook):
    """Notes the temperatures of a model and its EMA copy when an iteration begins, and of the saved state."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.temperatures = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        copies = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        self.temperatures.append([float(buffer) for model in (runner.model, *copies)
                                  for name, buffer in model.named_buffers() if name.endswith('temperature')])


@pytest.mark.parametrize('update_buffers', [False, True])
def test_ema_copy_follows(train, update_buffers):
    recorder = Recorder()
    runner = train(ToyModel(), hooks=(dict(type='EMAHook', update_buffers=update_buffers), recorder))
    assert recorder.temperatures == [pytest.approx([value] * 4) for value in formula(last=15)]
    saved = torch.load(f'{runner.work_dir}/iter_4.pth', weights_only=False)
    assert [float(value) for part in ('state_dict', 'ema_state_dict') for name, value in saved[part].items()
            if name.endswith('temperature')] == pytest.approx([formula()[3]] * 4)


def test_distributed_model(train, tmp_path):
    model = ToyModel()
    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        train(MMDistributedDataParallel(model), ITERATION_LOOP)
    finally:
        distributed.destroy_process_group()
    assert [row[1:] for row in seen(model)] == [pytest.approx([value] * 2) for value in formula()]


def test_compiled_model(train):
    compiled, plain = ToyModel(), ToyModel()
    graphs, compilations = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled.convs.forward = torch.compile(compiled.convs.forward, backend=backend)
    compiled.register_forward_hook(lambda *_: compilations.append(len(graphs)))
    train(compiled, ITERATION_LOOP)
    train(plain, ITERATION_LOOP, name='plain')
    torch.testing.assert_close(torch.tensor(seen(compiled)), torch.tensor(seen(plain)))
    assert 0 < compilations[0] == compilations[-1]  # a new temperature is no reason to compile again


def test_wrapper_of_torch_compile(train):
    model = ToyModel()
    train(torch.compile(model, backend='eager'), ITERATION_LOOP)
    assert [row[1] for row in seen(model)] == pytest.approx(formula())


# What the user sees.


def test_temperature_is_logged(train):
    runner = train(ToyModel(), ITERATION_LOOP)
    file, = Path(runner.work_dir).rglob('vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line['temperature'] for line in lines] == pytest.approx(formula())


@pytest.mark.parametrize(('loop', 'hook', 'words'), [
    (dict(by_epoch=False, max_iters=16), dict(epochs=10), 'epochs=10, 50 iterations (5 an epoch), but the training '
     'ends after 16, at 20.72 in place of 1: give the hook iters=16 or less'),
    (dict(by_epoch=False, max_iters=16), dict(iters=17), 'iters=17, but the training ends after 16, at 2.706'),
    (dict(by_epoch=True, max_epochs=2), dict(epochs=3), 'epochs=3, 15 iterations (5 an epoch), but the training ends '
     'after 10, at 10.67 in place of 1: give the hook epochs=2 or less'),
    (dict(by_epoch=True, max_epochs=2), {}, 'give the hook epochs=2 or less'),
], ids=['epochs of iterations', 'iterations', 'epochs', 'default'])
def test_a_training_that_ends_before_the_temperature_is_told(train, monkeypatch, loop, hook, words):
    assert words in announcement(train, monkeypatch, loop, hook, 'WARNING')


@pytest.mark.parametrize(('loop', 'hook', 'words'), [
    (dict(by_epoch=False, max_iters=16), dict(epochs=3), 'falls over epochs=3, 15 iterations (5 an epoch); iters='),
    (dict(by_epoch=False, max_iters=16), dict(iters=16), ''), (dict(by_epoch=True, max_epochs=2), dict(epochs=2), ''),
])
def test_epochs_of_iterations_are_said(train, monkeypatch, loop, hook, words):
    assert announcement(train, monkeypatch, loop, hook, 'WARNING') == ''
    assert words in announcement(train, monkeypatch, loop, hook, 'INFO')


def announcement(train, monkeypatch, loop: dict, hook: dict, level: str) -> str:
    """What the hook logs, at one level, when a training starts."""
    said = []
    with monkeypatch.context() as patch:
        patch.setattr(MMLogger, 'handle', lambda self, record: said.append(record))
        train(ToyModel(), loop, dict(type='TemperatureAnnealingHook', **hook), name=level,
              log_level='INFO')
    return ''.join(record.getMessage() for record in said
                   if record.levelname == level and record.getMessage().startswith('TemperatureAnnealingHook'))


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel], ids=['plain', 'wrapped'])
def test_model_without_temperature(wrap):
    runner = SimpleNamespace(model=wrap(ToyModel(dynamic=False)), hooks=[], train_dataloader=dataloader())
    with pytest.raises(ValueError, match='ToyModel has no layer with a temperature.*Remove the hook from custom_hooks'):
        TemperatureAnnealingHook().before_train(runner)


@pytest.mark.parametrize(('layer', 'hook', 'words'), [
    (ODConv2d(2, 4, 3), dict(start=1., end=0.), 'temperature must be a positive number, but is 0.0'),
    (KWConv2d(2, 4, 3), {}, 'temperature must be a number of at least 0 and at most 1, but is 30.0'),
], ids=['ODConv2d', 'KWConv2d'])
def test_a_temperature_that_a_layer_does_not_take(layer, hook, words):
    runner = SimpleNamespace(model=layer, hooks=[], train_dataloader=dataloader())
    with pytest.raises(ValueError, match=words):
        TemperatureAnnealingHook(**hook).before_train(runner)


def test_model_without_temperature_does_not_train(train):
    with pytest.raises(ValueError, match='custom_hooks'):
        train(ToyModel(dynamic=False))


@pytest.mark.parametrize(('arguments', 'words'), [
    *((dict([(name, value)]), f'{name} must be a positive number, but is')
      for name in ('start', 'epochs') for value in (0, -1., '30', True, float('inf'), float('nan'))),
    *((dict(end=value), 'end must be a number of at least 0, but is') for value in (-1., '30', True, float('nan'))),
    *((dict(iters=value), 'iters must be a positive int, but is') for value in (0, -1, 2.5, '30', True)),
    (dict(epochs=1, iters=5), 'epochs and iters exclude each other, but epochs=1 and iters=5'),
    (dict(start=None), 'start must be a positive number, but is'),
    (dict(start=1., end=2.), 'start must not be less than end, but start=1.0 and end=2.0'),
])
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        TemperatureAnnealingHook(**arguments)

"""A training interrupted after any iteration of annealing and resumed is, to the bit, one never interrupted."""
from __future__ import annotations

import functools
import json

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.runner import Runner
from thin_networks import METHODS, MOBILENET
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynconv_mm.models import DyConvMobileNetV2, KWMobileNetV2, ODConvMobileNetV2

ITERATIONS = 6  # of two epochs, over which the temperature falls
NETWORKS = {'ODConv': lambda: ODConvMobileNetV2(kernel_num=2, out_indices=(2, ), **MOBILENET),
            'DyConv': lambda: DyConvMobileNetV2(kernel_num=2, out_indices=(2, ), **MOBILENET),
            'KW': lambda: KWMobileNetV2(out_indices=(2, ), **MOBILENET)}
BETWEEN = {'KW': dict(start=1., end=0.)}  # which temperatures, if not the hook's default


class Classifier(BaseModel):

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image, label, mode='loss'):
        return dict(loss=nn.functional.cross_entropy(self.backbone(image)[0].mean((2, 3))[:, :3], label))


class Interrupt(Hook):
    """As Ctrl-C after an iteration, when its checkpoint is written."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    """Train, and go on with what was interrupted; returns what the last checkpoint holds and the log."""

    def run(network: str, interrupted_after: tuple[int, ...] = ()) -> tuple[dict, list[dict]]:
        folder = tmp_path_factory.mktemp('run')
        images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for number, stop in enumerate((*interrupted_after, None)):
            torch.manual_seed(number)  # what a new process starts with is another state
            data = TensorDataset(images, torch.arange(len(images)) % 3)
            loader = DataLoader(data, 2, sampler=InfiniteSampler(data, seed=1))
            runner = Runner(
                Classifier(NETWORKS[network]()), str(folder), loader,
                train_cfg=dict(by_epoch=False, max_iters=ITERATIONS),
                optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
                param_scheduler=dict(type='CosineAnnealingLR', by_epoch=False, T_max=ITERATIONS),
                custom_hooks=[dict(type='TemperatureAnnealingHook', epochs=2, **BETWEEN.get(network, {})),
                              dict(type='EMAHook', momentum=0.1, update_buffers=True),
                              *([Interrupt(stop)] if stop else [])],
                default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=dict(
                    type='AtomicCheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1)),
                resume=True, log_level='CRITICAL', experiment_name=f'{folder.name}-{number}', randomness=dict(seed=0))
            if stop:
                with pytest.raises(KeyboardInterrupt):
                    runner.train()
            else:
                runner.train()
        lines = [json.loads(line) for file in sorted(folder.rglob('vis_data/scalars.json'))
                 for line in file.read_text().splitlines()]
        log = [{key: line[key] for key in ('step', 'loss', 'lr', 'temperature')} for line in lines]
        return torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=False), sorted(log, key=lambda x: x['step'])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, '_log_env', lambda *_: None)  # not worth its time here
        yield run


@pytest.fixture(scope='module')
def uninterrupted(train):
    return functools.cache(train)


def tensors(value: object, name: str = '') -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by their places."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {key: tensor for part, inner in items for key, tensor in tensors(inner, f'{name}/{part}').items()}


@pytest.mark.one_at_a_time('network', 'after')
@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('after', [*((after, ) for after in range(1, ITERATIONS)), tuple(range(1, ITERATIONS))],
                         ids=str)
def test_resumed_is_uninterrupted(train, uninterrupted, count, network, after):
    count('interruptions after an iteration of annealing, each resumed', len(after))
    checkpoint, log = train(network, after)
    expected, expected_log = uninterrupted(network)
    assert log == expected_log and len({line['temperature'] for line in log}) == ITERATIONS
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        ours, theirs = tensors(checkpoint[part]), tensors(expected[part])
        assert ours.keys() == theirs.keys() and ours
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), (part, name)
    assert any(name.endswith('temperature') for name in tensors(expected['ema_state_dict']))
    assert checkpoint['param_schedulers'] == expected['param_schedulers']


@pytest.mark.parametrize('method', METHODS)
def test_moving_average_of_all_buffers(count, method):
    """mmengine's ExponentialMovingAverage is what its formula says, of weights, statistics and temperatures."""
    torch.manual_seed(0)
    model = METHODS[method]().train()
    average = ExponentialMovingAverage(model, momentum=0.1, update_buffers=True)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(4):
        with torch.no_grad():
            model(torch.randn(4, 3, 32, 32))
            for value in model.parameters():
                value += 0.01 * torch.randn_like(value)
            for name, value in model.named_buffers():
                if name.endswith('temperature'):
                    value.fill_(30. - step)
        count('updates of a moving average')
        average.update_parameters(model)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = value.double() if step == 0 else 0.9 * expected[name] + 0.1 * value.double()
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)
    average.module.eval()(torch.randn(1, 3, 32, 32))



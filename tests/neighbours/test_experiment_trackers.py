"""The temperature of attentions arrives in TensorBoard, Weights & Biases and MLflow, by mmengine's own backends."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, zeros

from dynconv_mm import ODConv2d, TemperatureAnnealingHook


def read_tensorboard(folder: Path, tracker: Any) -> list[float]:
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    file, = folder.rglob('events.out.tfevents.*')
    events = accumulator.EventAccumulator(str(file))
    events.Reload()
    return [event.value for event in events.Scalars('temperature')]


def read_wandb(folder: Path, tracker: Any) -> list[float]:
    return [tracker.run.summary['temperature']]


def read_mlflow(folder: Path, tracker: Any) -> list[float]:
    run, = tracker.search_runs(experiment_names=['attentions'], output_format='list')
    return [metric.value for metric in tracker.MlflowClient().get_metric_history(run.info.run_id, 'temperature')]


#: the package, its backend, and what reads the temperatures back
TRACKERS = {
    'tensorboard': ('tensorboard', dict(type='TensorboardVisBackend'), read_tensorboard),
    'wandb': ('wandb', dict(type='WandbVisBackend', init_kwargs=dict(mode='offline')), read_wandb),
    'mlflow': ('mlflow', dict(type='MLflowVisBackend', exp_name='attentions'), read_mlflow),
}


class Reader(Hook):
    """Reads them at the end of a training, before the backends are closed."""

    def __init__(self, backend: str, read: Callable[[Path, Any], list[float]]) -> None:
        self.backend, self.read = backend, read

    def after_train(self, runner: Runner) -> None:
        self.found = self.read(Path(runner.work_dir), runner.visualizer.get_backend(self.backend).experiment)


class Network(BaseModel):
    """One layer that learns to put out nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ODConv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def train_step(self, data: Tensor, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        loss = self(data).square().mean()
        optim_wrapper.update_params(loss)
        return dict(loss=loss)


@pytest.mark.parametrize('name', TRACKERS)
def test_temperature_arrives(name, tmp_path, monkeypatch):
    package, backend, read = TRACKERS[name]
    pytest.importorskip(package, reason=f'needs {package}: pip install {package}')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')  # which mmengine writes, and MLflow 3 refuses by default
    found = train(backend, read, tmp_path)
    falling = [3, 2, 1]
    assert found == falling[-len(found):] and found


def train(backend: dict, read: Callable[[Path, Any], list[float]], folder: Path) -> list[float]:
    reader = Reader(backend['type'], read)
    runner = Runner(
        Network(), str(folder), default_scope='mmengine', experiment_name=folder.name,
        train_dataloader=dict(dataset=[zeros(2, 4, 4)] * 6, batch_size=2, collate_fn=dict(type='default_collate'),
                              sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=3, val_interval=9),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[TemperatureAnnealingHook(start=4, end=1, iters=3), reader], cfg=dict(work_dir=str(folder)),
        visualizer=dict(type='Visualizer', vis_backends=[backend], name=folder.name))
    runner.train()
    return reader.found

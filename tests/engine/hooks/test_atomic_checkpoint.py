"""Checkpoints are written whole, named, and only then are old ones removed; else the hook is mmengine's."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dynconv_mm
from dynconv_mm.engine.hooks import atomic_checkpoint


class ToyModel(BaseModel):

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x, label, mode='loss'):
        if mode == 'predict':
            return [x]
        return dict(loss=nn.functional.cross_entropy(self.fc(x), label))


class Scores(BaseMetric):
    """Better in the second epoch and worse in the third."""

    values = (0.1, 0.3, 0.2)
    epoch = 0

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict[str, float]:
        Scores.epoch += 1
        return dict(score=self.values[Scores.epoch - 1])


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train three epochs; returns the runner."""
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)

    def run(name: str, **checkpoint) -> Runner:
        Scores.epoch = 0
        torch.manual_seed(0)
        data = DataLoader(TensorDataset(torch.linspace(-1, 1, 8).view(4, 2), torch.arange(4) % 2), 2)
        runner = Runner(
            ToyModel(), str(tmp_path / name), data, data, train_cfg=dict(by_epoch=True, max_epochs=3), val_cfg=dict(),
            val_evaluator=[Scores()], optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), log_level='CRITICAL',
            default_hooks=dict(checkpoint=dict(**checkpoint)), experiment_name=f'{tmp_path.name}-{name}',
            randomness=dict(seed=0))
        runner.train()
        return runner

    return run


def test_the_name_in_older_configs_builds():
    assert HOOKS.get('WholeCheckpointHook') is dynconv_mm.WholeCheckpointHook is dynconv_mm.AtomicCheckpointHook


@pytest.mark.parametrize('options', [dict(interval=1), dict(interval=1, max_keep_ckpts=1),
                                     dict(interval=2, max_keep_ckpts=2, save_best='score', rule='greater')], ids=str)
def test_it_keeps_what_mmengine_keeps(train, options):
    left = []
    for hook in ('CheckpointHook', 'AtomicCheckpointHook'):
        folder = Path(train(hook, type=hook, **options).work_dir)
        latest = Path((folder / 'last_checkpoint').read_text()).name
        kept = torch.load(folder / latest, weights_only=False)['message_hub']['runtime_info'].get('keep_ckpt_ids')
        left.append((sorted(file.name for file in folder.glob('*.pth')), latest, kept))
    assert left[0] == left[1]
    assert not list(folder.glob('.*'))


def test_order(train, monkeypatch):
    """Old ones go when the new one is there and named; the best too."""
    events = []

    def note(owner, name, what):
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda self, *args: events.append((what, Path(str(args[-1])).name))
                            or method(self, *args))

    note(atomic_checkpoint.AtomicBackend, 'put', 'written')
    note(LocalBackend, 'remove', 'removed')
    train('order', type='AtomicCheckpointHook', interval=1, max_keep_ckpts=1, save_best='score', rule='greater')
    for old, new in (('epoch_1.pth', 'epoch_2.pth'), ('best_score_epoch_1.pth', 'best_score_epoch_2.pth')):
        assert events.index(('written', new)) < events.index(('removed', old))


def test_other_storage_is_left_to_mmengine(train, monkeypatch):
    """Such as a bucket."""

    class Elsewhere(LocalBackend):
        pass

    monkeypatch.setattr('mmengine.hooks.checkpoint_hook.get_file_backend', lambda *_, **__: Elsewhere())
    monkeypatch.setattr(atomic_checkpoint.AtomicBackend, 'put', lambda *_: pytest.fail('writes to a local file'))
    runner = train('elsewhere', type='AtomicCheckpointHook', interval=1, save_best='score', rule='greater')
    assert Path(runner.work_dir, 'epoch_3.pth').is_file()


def test_a_training_resumed_cleans_up(train, tmp_path):
    partial = tmp_path / 'again' / '.epoch_1.pth.abcd1234'
    partial.mkdir(parents=True)
    (partial / 'epoch_1.pth').write_bytes(b'half')
    train('again', type='AtomicCheckpointHook', interval=1)
    assert not partial.exists()

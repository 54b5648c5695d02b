"""Kill a training at every step of writing a checkpoint, resume it, and say how it ended: a line of JSON a kill.

Imports once and forks for each training, so that many can be killed in little time. Takes the folder to work in.
"""
from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import mmengine.runner.runner
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynconv_mm.layers import ODConv2d

ITERATIONS, KILLED_AT = 4, 3  # the checkpoint of this iteration is the one that is not written
FILE_OPERATIONS = ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir')
CHECKPOINT_SIZE = 2_000_000  # bytes, at least
RANDOM_KILLS = 20


class ToyModel(BaseModel):
    """A dynamic layer, and ballast, so that a checkpoint takes its time to write."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = ODConv2d(2, 3, 3)
        self.register_buffer('ballast', torch.rand(CHECKPOINT_SIZE // 4))

    def forward(self, image, label, mode='loss'):
        return dict(loss=nn.functional.cross_entropy(self.conv(image).mean((2, 3)), label))


class Fault(Hook):
    """Call a function before the checkpoint of iteration :data:`KILLED_AT` is written, and end when it is."""

    priority = 89  # just before the checkpoint

    def __init__(self, inject) -> None:
        self.inject = inject

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == KILLED_AT:
            os._exit(0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == KILLED_AT:
            self.inject()


def kill_at_operation(number: int) -> None:
    """Die before the operation on files of this number."""
    done = 0

    def audit(event: str, arguments: tuple) -> None:
        nonlocal done
        if event in FILE_OPERATIONS:
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(audit)


def kill_at_byte(number: int) -> None:
    """Die when a file grows beyond this size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))


def make_runner(folder: Path, hook: str, inject=None) -> Runner:
    """Which trains, or goes on with what is in the folder."""
    Runner._log_env = lambda *_: None  # a list of what is installed is not worth its time here …
    mmengine.runner.runner.get_git_hash = str  # … nor is the commit
    images = torch.randn(2 * ITERATIONS, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.arange(len(images)) % 3)
    return Runner(
        ToyModel(), str(folder), DataLoader(data, 2), train_cfg=dict(by_epoch=False, max_iters=ITERATIONS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)), log_level='CRITICAL',
        custom_hooks=[dict(type='TemperatureAnnealingHook', epochs=1), *([Fault(inject)] if inject else [])],
        default_hooks=dict(checkpoint=dict(type=hook, by_epoch=False, interval=1, max_keep_ckpts=1)),
        resume=True, randomness=dict(seed=0))


def train(folder: Path, hook: str, inject=None) -> None:
    make_runner(folder, hook, inject).train()


def import_all(folder: Path) -> None:
    """Import here, once, what a training imports as it goes; without a backward pass, after which none may fork."""
    make_runner(folder, 'CheckpointHook')
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1).step()


def fork(function, *arguments, kill_after: float | None = None) -> int:
    """Run a function in a child; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, temperature and momentum at the end."""
    checkpoint = torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=False)
    momentum = checkpoint['optimizer']['state']
    return checkpoint['state_dict'] | {f'momentum {key}': value['momentum_buffer'] for key, value in momentum.items()}


def is_same(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(value, expected[key]) for key, value in state.items())


def main(folder: Path) -> None:
    import_all(folder / 'imports')
    whole = folder / 'whole'
    start = time.monotonic()
    assert fork(train, whole, 'AtomicCheckpointHook') == 0
    duration = time.monotonic() - start
    expected = final_state(whole)

    def report(how: str, at: float, hook: str, **kwargs) -> int:
        """Kill one training, resume it, and print how it ended; returns how it was killed."""
        run = folder / 'killed'
        killed = fork(train, run, hook, kwargs.pop('inject', None), **kwargs)
        latest = find_latest_checkpoint(str(run))
        resumed = fork(train, run, hook)
        same = resumed == 0 and is_same(final_state(run), expected)
        left = sorted(path.name for path in run.iterdir() if path.is_file() or path.name.startswith('.'))
        print(json.dumps(dict(how=how, at=at, hook=hook, killed=killed, latest=latest and Path(latest).name,
                              resumed=resumed, same=same, left=left)), flush=True)
        shutil.rmtree(run)
        return killed

    operation = 0
    while report('operation', operation, 'AtomicCheckpointHook', inject=partial(kill_at_operation, operation)):
        operation += 1
    size = (whole / f'iter_{ITERATIONS}.pth').stat().st_size
    for part in (0., 0.1, 0.3, 0.5, 0.7, 0.9, 0.999):
        report('byte', int(part * size), 'AtomicCheckpointHook', inject=partial(kill_at_byte, int(part * size)))
    report('byte', size // 2, 'CheckpointHook', inject=partial(kill_at_byte, size // 2))
    chance = random.Random(0)
    for _ in range(RANDOM_KILLS):
        delay = chance.uniform(0.2, 1) * duration
        report('time', round(delay, 3), 'AtomicCheckpointHook', kill_after=delay)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))

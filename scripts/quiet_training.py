"""A training by mmengine's Runner that leaves nothing behind: no log, no files."""
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.hooks import Hook
    from torch import nn
    from torch.utils.data import DataLoader

numbers = itertools.count()  # each of mmengine's runners needs a name of its own


def train(model: nn.Module, loader: DataLoader, optim_wrapper: dict, hooks: Sequence[Hook | dict], epochs: int = 1,
          param_scheduler: dict | None = None, seed: int | None = None) -> None:
    """Train a model, whose batches the loader gives as they go into it.

    Args:
        seed (int, optional): of what is random in the training. Default: another one each time.
    """
    import tempfile

    from mmengine.runner import Runner

    with tempfile.TemporaryDirectory() as folder:
        Runner(model, folder, loader, train_cfg=dict(by_epoch=True, max_epochs=epochs), optim_wrapper=optim_wrapper,
               param_scheduler=param_scheduler, custom_hooks=list(hooks), log_level='ERROR', default_scope='mmengine',
               default_hooks=dict(timer=None, logger=None, checkpoint=None, sampler_seed=None),
               randomness=dict(seed=seed), experiment_name=f'quiet_training_{next(numbers)}').train()

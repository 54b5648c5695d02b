"""Random numbers that depend on the epoch alone, so that a resumed training repeats an uninterrupted one."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed Python, numpy and torch anew before each epoch, with the runner's seed plus the epoch.

    mmengine's checkpoints hold no random state: without this hook a resumed training draws other numbers
    (in the samplers of anchors and proposals, in dropout) than one that was never interrupted. It reaches
    the training process, not data loader workers that live on over epochs: random augmentation there
    still differs.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed."""
        set_random_seed(runner.seed + runner.epoch)

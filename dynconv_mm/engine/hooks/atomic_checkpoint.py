"""Checkpoints that are written atomically, so that a training can be killed at any moment and resumed."""
from __future__ import annotations

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...atomic_write import atomic_write, remove_leftovers

BACKEND = 'dynconv_mm_atomic'


class AtomicBackend(LocalBackend):
    """mmengine's backend of local files, which takes a file's place when all of it is written."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        with atomic_write(filepath) as partial:
            super().put(obj, partial)


register_backend(BACKEND, AtomicBackend, force=True)


class LateRemoval(AtomicBackend):
    """A backend that notes what to remove instead of removing it."""

    def __init__(self) -> None:
        self.outdated: list[str] = []

    def remove(self, filepath: str | Path) -> None:
        """Note a file."""
        self.outdated.append(str(filepath))


@HOOKS.register_module(['AtomicCheckpointHook', 'WholeCheckpointHook'])
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, after which a training that was killed at any moment can be resumed.

    mmengine writes a checkpoint into its place and first removes those that ``max_keep_ckpts`` does not keep: killed
    at that moment, a training is left with a truncated file, with ``save_best`` in the place of a good one, with
    ``max_keep_ckpts=1`` without any other. Here a file takes its place when it is whole, then ``last_checkpoint`` names
    it, and what is outdated goes last. What a killed training has left half-written is removed when it is resumed.

    In any config: ``default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))``. On other than local storage
    files are written as mmengine's backend writes them, and in the same order.

    Args:
        *args, **kwargs: of ``CheckpointHook``.
    """

    def before_train(self, runner: Runner) -> None:
        """Prepare as ``CheckpointHook``; clean up."""
        super().before_train(runner)
        if self.file_client_args is None and type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend=BACKEND)
            self.file_backend = get_file_backend(backend_args=self.backend_args)
            if is_main_process():
                for folder in {self.out_dir, runner.work_dir}:
                    remove_leftovers(folder)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """As ``CheckpointHook``, but the best one before goes when the new one is written."""
        if not self.save_best or not isinstance(self.file_backend, AtomicBackend):
            super()._save_best_checkpoint(runner, metrics)
            return
        backend, self.file_backend = self.file_backend, LateRemoval()
        try:
            super()._save_best_checkpoint(runner, metrics)
            outdated = self.file_backend.outdated
        finally:
            self.file_backend = backend
        best = [self.best_ckpt_path] if len(self.key_indicators) == 1 else self.best_ckpt_path_dict.values()
        for path in set(outdated) - set(best):
            backend.remove(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Write, name, then remove; called by ``CheckpointHook`` for every checkpoint but the best."""
        outdated = None
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self._path_of(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._path_of(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(self.out_dir, self.filename_tmpl.format(step), self.file_client_args,
                               save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler,
                               meta=meta, by_epoch=self.by_epoch, backend_args=self.backend_args, **self.args)
        if not is_main_process():
            return
        with atomic_write(Path(runner.work_dir, 'last_checkpoint')) as partial:
            partial.write_text(self.last_ckpt)
        if outdated is not None:
            if self.file_backend.isfile(outdated):
                self.file_backend.remove(outdated)
            elif self.file_backend.isdir(outdated):  # as DeepSpeed writes them
                self.file_backend.rmtree(outdated)

    def _path_of(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))


WholeCheckpointHook = AtomicCheckpointHook  # its former name, which configs may have

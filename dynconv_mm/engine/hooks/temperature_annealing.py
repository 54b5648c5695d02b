"""Temperature annealing of attentions (DyConv, CVPR 2020, §3.3; ODConv, ICLR 2022, A.2)."""
from __future__ import annotations

import math

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from ...layers.conv_arguments import check_positive_int
from ...layers.temperature import TemperatureMixin, check_temperature


def iterations_per_epoch(dataloader: DataLoader) -> int:
    """Iterations in which all processes together go through the data once."""
    sampler = getattr(dataloader.batch_sampler, 'sampler', None)
    # the only one whose length is not that of this process's part
    processes = sampler.world_size if isinstance(sampler, InfiniteSampler) else 1
    return math.ceil(len(dataloader) / processes)


@HOOKS.register_module()
class TemperatureAnnealingHook(Hook):
    r"""Lower the temperature of all attentions linearly, iteration by iteration.

    .. math:: \tau_t = \mathrm{end} + (\mathrm{start} - \mathrm{end}) \max(0, (T - t) / T)

    where t is the number of iterations done, plus 1, and T = ``iters``, or ``epochs`` · iterations in which the data
    is seen once. It depends on nothing but the iteration, so a resumed training goes on exactly. All layers with a
    temperature are set, whatever wraps the model, and those of an ``EMAHook``'s copy too. The training log shows
    ``temperature``, and warns at the start of a training that ends before the temperature does; in an iteration-based
    one it says which T ``epochs`` comes to.

    For pre-training only; downstream the temperature stays at 1 (ODConv A.2). KernelWarehouse's τ is another quantity,
    annealed from 1 to 0, and downstream it stays at 0.

    Args:
        start (float): temperature before the first iteration. Default: 30.
        end (float): temperature from iteration T on; 0 is for layers that take it. Default: 1.
        epochs (int | float, optional): epochs over which it falls. Default: 10, unless ``iters`` is given.
        iters (int, optional): iterations over which it falls, in place of ``epochs``.

    Raises:
        ValueError: an argument is not positive, but for ``end``, ``start`` is less than ``end``, or both ``epochs``
            and ``iters`` are given; at the start of training, the model has no layer with a temperature, or one that
            does not take these.
    """

    def __init__(self, start: float = 30., end: float = 1., epochs: float | None = None,
                 iters: int | None = None) -> None:
        if epochs is not None and iters is not None:
            raise ValueError(f'epochs and iters exclude each other, but epochs={epochs!r} and iters={iters!r}: give '
                             'the one that the training loop counts in')
        if iters is not None:
            check_positive_int('iters', iters)
        elif epochs is None:
            epochs = 10
        for name, value in (('start', start), *([('epochs', epochs)] if iters is None else [])):
            check_temperature(value, name)
        check_temperature(end, 'end', least=0)
        if start < end:
            raise ValueError(f'start must not be less than end, but start={start} and end={end}')
        self.start, self.end, self.epochs, self.iters = start, end, epochs, iters

    def temperature_at(self, iteration: int, epoch_length: int) -> float:
        """τ of an iteration.

        Args:
            iteration (int): number of iterations done before it.
            epoch_length (int): iterations per epoch.
        """
        total = self._total(epoch_length)
        return self.end + (self.start - self.end) * max(0., (total - iteration - 1) / total)

    def _total(self, epoch_length: int) -> float:
        return self.epochs * epoch_length if self.iters is None else self.iters

    def before_train(self, runner: Runner) -> None:
        """Find the layers, and refuse a model without any; say what a user may not expect."""
        copies = [hook.ema_model for hook in runner.hooks if isinstance(getattr(hook, 'ema_model', None), nn.Module)]
        self._layers = [module for model in (runner.model, *copies) for module in model.modules()
                        if isinstance(module, TemperatureMixin)]
        if not self._layers:
            model = getattr(runner.model, 'module', runner.model)
            raise ValueError(
                f'TemperatureAnnealingHook: the model {type(model).__name__} has no layer with a temperature '
                '(such as ODConv2d) to anneal. Remove the hook from custom_hooks, or use a dynamic backbone.')
        for layer in self._layers:
            for temperature in (self.start, self.end):
                layer.check_temperature(temperature)
        self._epoch_length = iterations_per_epoch(runner.train_dataloader)
        self._current = None
        self._announce(runner)

    def _announce(self, runner: Runner) -> None:
        total = self._total(self._epoch_length)
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        told = f'iters={total}' if self.iters is not None else \
            f'epochs={self.epochs:g}, {total:g} iterations ({self._epoch_length} an epoch)'
        if total > runner.max_iters:
            remedy = f'iters={runner.max_iters}' if by_iteration else f'epochs={runner.max_epochs}'
            runner.logger.warning(
                f'TemperatureAnnealingHook: the temperature falls over {told}, but the training ends after '
                f'{runner.max_iters}, at {self.temperature_at(runner.max_iters - 1, self._epoch_length):.4g} in place '
                f'of {self.end:g}: give the hook {remedy} or less, or train longer.')
        elif by_iteration and self.iters is None:
            runner.logger.info(f'TemperatureAnnealingHook: the temperature falls over {told}; iters=… sets them.')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Set the temperature of the iteration to come."""
        temperature = self.temperature_at(runner.iter, self._epoch_length)
        if temperature != self._current:
            for layer in self._layers:
                layer.set_temperature(temperature)
            self._current = temperature
        runner.message_hub.update_scalar('train/temperature', temperature)

#!/usr/bin/env python3
"""Train networks with and without dynamic convolutions on the characters of fonts, at equal budgets, run by run.

Each run is one network, learning rate and seed, on one thread. Its results go to docs/comparison.json, of which
scripts/comparison_page.py makes docs/comparison.md. Without --only all runs that have no results yet are done, the most
telling first; it can be stopped at any time, and goes on with the run that it was in.

    python scripts/compare_methods.py --list
    python scripts/compare_methods.py --only 'ResNet-18, ODConv (4×), *'
    python scripts/compare_methods.py --repeat 'ResNet-18, static, lr 0.1, seed 1'
"""
from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from compare_fine_tuning import METHODS as STARTS
from compare_fine_tuning import NOISE, SMALL
from pages import ROOT

from dynconv_mm.atomic_write import write_text
from dynconv_mm.compat.close_names import did_you_mean

if TYPE_CHECKING:
    from glyph_task import Glyphs
    from torch import nn

RESULTS = ROOT / 'docs' / 'comparison.json'
SGD = dict(type='SGD', momentum=0.9, weight_decay=1e-4, nesterov=True)
# one for each family of networks: the best of its static network, with seed 0
RATES = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
OTHER_RATES = 1 / 2, 2  # for all methods, in parts of the first
ANNEALED = 1 / 10  # of the training, over which temperatures fall: ODConv's 10 of 100 epochs
FIRST_SEED, SEEDS, FURTHER_SEEDS = (0, ), (0, 1, 2), (3, 4)
TEST_FAMILIES = 4  # in a batch


class Schedule(NamedTuple):
    """How long a network learns, by one cosine from its learning rate to 0."""

    epochs: int = 1
    steps: int = 599  # an epoch: nearly all pictures of docs/glyph_fonts.json
    batch: int = 64

    def of_half(self) -> Schedule:
        """As many steps with half of the pictures."""
        return self._replace(epochs=2 * self.epochs, steps=self.steps // 2)

    def of_fine_tuning(self) -> Schedule:
        """A quarter of the steps."""
        return self._replace(epochs=1, steps=max(self.epochs * self.steps // 4, 1))


class Network(NamedTuple):
    """A backbone of this package and its classifier."""

    kind: str
    arguments: dict = {}
    head: str = 'LinearClsHead'
    annealed: bool = True  # if it has temperatures
    neutral: str = ''  # when its attentions are the same for all pictures: 'at first', 'always', or as trained


class Run(NamedTuple):
    """One training."""

    family: str
    method: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """In the results."""
        return f'{self.family}, {self.method}, lr {self.rate:g}, seed {self.seed}'


class Training(NamedTuple):
    """What is known of one when it is done."""

    milliseconds: float  # of a processor for a picture, the median over the steps
    loss: float  # the mean over the last tenth of the steps


RESNET18, RESNET26, MOBILENET = FAMILIES = 'ResNet-18', 'ResNet-26', 'MobileNetV2'
WARM, LONG = ALSO_RESNET18 = 'warm start', 'ResNet-18 for longer'
LONGER = 4  # times as many epochs
RESNET = dict(SMALL, in_channels=1, strides=(1, 2, 1), zero_init_residual=False)
COMMON = {  # of all networks of a family; pictures are gray and small
    RESNET18: dict(RESNET, depth=18),
    RESNET26: dict(RESNET, depth=26, stem_channels=32),  # RedNet's stem has half of them, in groups of 16
    MOBILENET: dict(in_channels=1, widen_factor=0.25),
}
COMMON.update(dict.fromkeys(ALSO_RESNET18, COMMON[RESNET18]))
SCALE = {MOBILENET: 1.5}  # by which pictures are enlarged, where a network cannot have fewer strides
SE = dict(plugins=[dict(cfg=dict(type='DynConvSELayer'), position='after_conv2')])


def odconv(kernel_num: int = 1, **arguments: object) -> Network:
    """ODConv's ResNet."""
    annealed = bool(arguments.pop('annealed', True))
    return Network('ODConvResNet', dict(kernel_num=kernel_num, **arguments), annealed=annealed)


COMPARED = {
    RESNET18: {
        'static': Network('ResNet'),
        'SE': Network('ResNet', SE),
        'ODConv (1×)': odconv(1),
        'ODConv (4×)': odconv(4),
        'DyConv (4×)': Network('DyConvResNet'),
        'CondConv (8×)': Network('CondConvResNet', head='CondConvLinearClsHead'),
        'DCD': Network('DCDResNet', head='DCDLinearClsHead'),
        'KernelWarehouse (1×)': Network('KWResNet', dict(temperature=1.)),
        'FDConv': Network('FDConvResNet'),
    },
    RESNET26: {
        'static': Network('ResNet'),
        'RedNet': Network('RedNet'),
        'DCDC': Network('DCDCResNet'),
    },
    MOBILENET: {
        'static': Network('MobileNetV2'),
        'ODConv (1×)': Network('ODConvMobileNetV2', dict(kernel_num=1)),
        'ODConv (4×)': Network('ODConvMobileNetV2', dict(kernel_num=4)),
        'DyConv (4×)': Network('DyConvMobileNetV2'),
        'CondConv (8×)': Network('CondConvMobileNetV2', head='CondConvLinearClsHead'),
        'DCD': Network('DCDMobileNetV2', head='DCDLinearClsHead'),
        'KernelWarehouse (1×)': Network('KWMobileNetV2', dict(temperature=1.)),
        'FDConv': Network('FDConvMobileNetV2'),
    },
}
FEW = dict(min_channels=4)  # a quarter of the least hidden width, as the network's; else r would change next to nothing
SLOW = 'KernelWarehouse (1×)', 'FDConv'  # of ResNet-18: they take as long as all others together, and turns after them
QUICK = [method for method in COMPARED[RESNET18] if method not in SLOW]
SOON = 'static', 'ODConv (1×)'  # what is looked at more closely first
CHANGED = {  # ODConv's ResNet-18 and DyConv's, as in ablations
    'ODConv (1×), no annealing': odconv(1, annealed=False),
    'ODConv (4×), no annealing': odconv(4, annealed=False),
    'DyConv (4×), no annealing': Network('DyConvResNet', annealed=False),
    'ODConv (1×), spatial alone': odconv(1, attentions=('spatial', )),
    'ODConv (1×), channel alone': odconv(1, attentions=('channel', )),
    'ODConv (1×), filter alone': odconv(1, attentions=('filter', )),
    'ODConv (4×), kernel alone': odconv(4, attentions=('kernel', )),
    'ODConv (2×)': odconv(2),
    'ODConv (8×)': odconv(8),
    'ODConv (1×), r = 1/4': odconv(1, reduction=1 / 4, **FEW),
    'ODConv (1×), r = 1/8': odconv(1, reduction=1 / 8, **FEW),
    'ODConv (1×), r = 1/16': odconv(1, reduction=1 / 16, **FEW),
}
NEUTRAL = {  # FDConv's attentions begin so anyway
    family: {
        'ODConv (1×), always neutral': COMPARED[family]['ODConv (1×)']._replace(neutral='always'),
        **{f'{method}, neutral at first': network._replace(neutral='at first')
           for method, network in COMPARED[family].items() if method not in ('static', 'SE', 'FDConv')},
    } for family in (RESNET18, MOBILENET)
}
NORMS = {  # in the attentions, which are with a batch norm in the paper
    family: {f'{method}, layer norm{", neutral at first" if neutral else ""}': network._replace(
        arguments=dict(network.arguments, attention_norm_cfg=dict(type='LN')), neutral=neutral)
        for neutral in ('', 'at first') for method, network in COMPARED[family].items() if method.startswith('ODConv')}
    for family in (RESNET18, MOBILENET)
}
VARIANTS = {  # beside those that are compared
    RESNET18: {**CHANGED, **NEUTRAL[RESNET18], **NORMS[RESNET18]},
    MOBILENET: {**NEUTRAL[MOBILENET], **NORMS[MOBILENET]},
}
COMPARED[LONG] = {**{method: COMPARED[RESNET18][method] for method in QUICK},
                  **{method: VARIANTS[RESNET18][method] for method in (
                      'ODConv (1×), neutral at first', 'ODConv (1×), layer norm, neutral at first',
                      'ODConv (4×), layer norm, neutral at first')}}


def network_of(run: Run) -> Network:
    """What it trains."""
    if run.family == WARM:
        return Network(STARTS[run.method].kind, STARTS[run.method].arguments, annealed=False)
    return {**COMPARED[run.family], **VARIANTS.get(run.family, {})}[run.method]


def rate_of(family: str, runs: Mapping[str, dict]) -> float:
    """The learning rate of a family: the one with which its static network is best, as far as it was trained."""
    family = RESNET18 if family in ALSO_RESNET18 else family
    return max(RATES, key=lambda rate: sum(runs.get(Run(family, 'static', rate, 0).name, {}).get('correct', [-1])))


def grid(family: str) -> list[Run]:
    """The runs by which the learning rate of a family is chosen."""
    return [Run(RESNET18 if family in ALSO_RESNET18 else family, 'static', rate, 0) for rate in RATES]


def plan(runs: Mapping[str, dict]) -> dict[str, list[Run]]:
    """All runs by what they are for, in their order, with the learning rates that the results so far lead to: a seed of
    everything before a second one, but for what all else is measured by."""

    def block(family: str, methods: Iterable[str], seeds: Iterable[int], part: float = 1) -> list[Run]:
        return [Run(family, method, part * rate_of(family, runs), seed) for seed in seeds for method in methods]

    def variants(seeds: Iterable[int]) -> list[Run]:
        return [run for family, methods in VARIANTS.items() for run in block(family, methods, seeds)]

    return {
        'learning rate of ResNet-18': grid(RESNET18),
        'ResNet-18': block(RESNET18, QUICK, SEEDS),
        'neutral attentions': [run for run in block(RESNET18, NEUTRAL[RESNET18], FIRST_SEED)
                               if run.method.startswith(SOON)],
        'warm start': block(WARM, STARTS, FIRST_SEED),
        'these for longer': block(LONG, SOON, FIRST_SEED),
        'ResNet-26': grid(RESNET26) + block(RESNET26, COMPARED[RESNET26], FIRST_SEED),
        'MobileNetV2': grid(MOBILENET) + block(MOBILENET, COMPARED[MOBILENET], FIRST_SEED),
        'double of the learning rate': block(RESNET18, QUICK, FIRST_SEED, OTHER_RATES[1]),
        ' and '.join(SLOW): block(RESNET18, SLOW, SEEDS[::-1]),
        'all methods for longer': block(LONG, COMPARED[LONG], FIRST_SEED),
        'all neutral attentions, and ablations': variants(FIRST_SEED),
        'half and double of all learning rates': [run for family in FAMILIES for part in OTHER_RATES
                                                  for run in block(family, COMPARED[family], FIRST_SEED, part)],
        'two more of the warm start': block(WARM, STARTS, SEEDS),
        'two more of the other networks': [run for family in (RESNET26, MOBILENET)
                                           for run in block(family, COMPARED[family], SEEDS)],
        'two more seeds of the longer ones': block(LONG, COMPARED[LONG], SEEDS),
        'two more of the ablations': variants(SEEDS),
        'fourth and fifth seeds': [run for family in (RESNET18, RESNET26)
                                   for run in block(family, COMPARED[family], FURTHER_SEEDS)],
    }


def planned(runs: Mapping[str, dict]) -> list[Run]:
    """All runs in their order, each once."""
    return list(dict.fromkeys(run for block in plan(runs).values() for run in block))


def chosen(patterns: Iterable[str], runs: Mapping[str, dict]) -> list[Run]:
    """The planned runs whose names are like one of the patterns, behind those that choose their learning rates.

    Raises:
        ValueError: a pattern is like no name.
    """
    every, found = planned(runs), []
    for pattern in patterns:
        matches = [run for run in every if fnmatch.fnmatchcase(run.name, pattern)]
        if not matches:
            names = {run.name: None for run in every} | {f'{run.family}, {run.method}, *': None for run in every}
            raise ValueError(f'no run is called {pattern!r}{did_you_mean(pattern, names)}; --list shows all')
        found += matches
    needed = [run for family in dict.fromkeys(run.family for run in found) for run in grid(family)]
    return [run for run in every if run in {*found, *needed}]


def build(family: str, network: Network, classes: int) -> nn.Module:
    """A fresh classifier."""
    from mmengine.logging import MMLogger
    from mmengine.model import BaseDataPreprocessor
    from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead

    from dynconv_mm.models import backbones, heads

    MMLogger.get_instance('compare_methods').setLevel('ERROR')  # else every fresh parameter is reported
    backbone = getattr(backbones, network.kind)(**{**COMMON[family], **network.arguments})
    kind = LinearClsHead if network.head == 'LinearClsHead' else getattr(heads, network.head)
    head = kind(num_classes=classes, in_channels=backbone.feat_dim, loss=dict(type='mmpretrain.CrossEntropyLoss'))
    model = ImageClassifier(backbone, GlobalAveragePooling(), head, data_preprocessor=BaseDataPreprocessor())
    model.init_weights()
    return model


def neutralize(model: nn.Module, always: bool) -> None:
    """Let all attentions of a fresh model be the same for every picture, as a warm start does; if not always, they
    learn.
    """
    import torch

    from dynconv_mm.models.backbones.base import attention_modules
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, 'neutralize_attention'):
                module.neutralize_attention()
    for attention in attention_modules(model) if always else []:
        attention.requires_grad_(False)


def fit(model: nn.Module, glyphs: Glyphs, schedule: Schedule, run: Run, annealed: bool,
        rates: Mapping[str, float] | None = None) -> Training:
    """Train a model.

    Args:
        rates (Mapping[str, float], optional): of parameters that learn that many times as fast, and decay as others do.
    """
    from glyph_task import batches
    from mmengine.hooks import Hook
    from quiet_training import train
    from tqdm import tqdm
    from training_parity import annealing_of

    from dynconv_mm.functional.mixture_conv import use_plan

    steps, times, losses = schedule.epochs * schedule.steps, [], []
    bar = tqdm(total=steps, desc=run.name, leave=False, disable=None)

    class Clock(Hook):

        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            self.start = time.process_time()

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            times.append(time.process_time() - self.start)
            losses.append(outputs['loss'].item())
            bar.update()

    annealing = annealing_of(model, max(round(ANNEALED * steps), 1)) if annealed else None
    keys = {name: dict(lr_mult=rate, decay_mult=1 / rate) for name, rate in (rates or {}).items()}
    with bar, use_plan('grouped'):  # as in all runs; 'auto' has become faster since they began
        train(model, batches(glyphs, schedule.steps, schedule.batch, run.seed, SCALE.get(run.family, 1)),
              dict(optimizer=dict(SGD, lr=run.rate), paramwise_cfg=dict(custom_keys=keys)),
              [Clock(), *([dict(type='TemperatureAnnealingHook', **annealing)] if annealing else [])],
              schedule.epochs, dict(type='CosineAnnealingLR', T_max=steps, by_epoch=False), run.seed)
    return Training(1000 * statistics.median(times) / schedule.batch, statistics.mean(losses[-max(steps // 10, 1):]))


def test(model: nn.Module, glyphs: Glyphs, scale: float) -> tuple[list[int], float]:
    """How many characters of each family are recognised, and milliseconds of a processor for a picture."""
    import torch
    from glyph_task import as_inputs

    labels, correct, times = torch.arange(len(glyphs.classes)), [], []
    model.eval()
    with torch.no_grad():
        for images in glyphs.images.split(TEST_FAMILIES):
            inputs = as_inputs(images.flatten(0, 1), scale)
            start = time.process_time()
            found = model(inputs).argmax(1)
            times.append((time.process_time() - start) / len(inputs))
            correct += (found.view(-1, len(labels)) == labels).sum(1).tolist()
    return correct, 1000 * statistics.median(times)


def execute(run: Run, splits: dict[str, Glyphs], schedule: Schedule, folder: Path) -> dict:
    """Train and test; what of it is kept in the results."""
    import torch

    from dynconv_mm.analysis.multiply_adds import count_madds
    from dynconv_mm.functional.device_record import processor

    torch.set_num_threads(1)
    begin = time.process_time()
    model, training = (fine_tuned if run.family == WARM else trained)(run, splits, schedule, folder)
    val = splits['val'].every_other_class(1) if run.family == WARM else splits['val']
    scale = SCALE.get(run.family, 1)
    correct, test_ms = test(model, val, scale)
    size = tuple(int(scale * side) for side in val.images.shape[-2:])
    return dict(correct=correct, params=sum(parameter.numel() for parameter in model.parameters()),
                madds=count_madds(model, size, 1),
                loss=round(training.loss, 4) if math.isfinite(training.loss) else None,
                train_ms=round(training.milliseconds, 4), test_ms=round(test_ms, 4),
                seconds=round(time.process_time() - begin, 1), load=round(os.getloadavg()[0], 1),
                machine=f'{processor()}, torch {torch.__version__}')


def trained(run: Run, splits: dict[str, Glyphs], schedule: Schedule, folder: Path) -> tuple[nn.Module, Training]:
    """A network of the comparison."""
    from mmengine.runner import set_random_seed

    set_random_seed(run.seed)
    network = network_of(run)
    if run.family == LONG:
        schedule = schedule._replace(epochs=LONGER * schedule.epochs)
    model = build(run.family, network, len(splits['train'].classes))
    if network.neutral:
        neutralize(model, network.neutral == 'always')
    return model, fit(model, splits['train'], schedule, run, network.annealed)


def fine_tuned(run: Run, splits: dict[str, Glyphs], schedule: Schedule, folder: Path) -> tuple[nn.Module, Training]:
    """A network that learned one half of the classes, started as the static network that learned the other half."""
    from glyph_task import digest
    from mmengine.runner import set_random_seed

    from dynconv_mm.conversion import kernel_rates, read_state_dict, warm_start, write_checkpoint

    start, classes = STARTS[run.method], splits['train'].every_other_class(1)
    static = folder / f'{digest(splits)}_{"x".join(map(str, schedule))}_lr{run.rate:g}_seed{run.seed}.pth'
    if start.warm and not static.exists():
        first = splits['train'].every_other_class(0)
        set_random_seed(run.seed)
        model = build(RESNET18, COMPARED[RESNET18]['static'], len(first.classes))
        fit(model, first, schedule.of_half(), run, False)
        write_checkpoint(static, model.state_dict())
    set_random_seed(run.seed)
    model = build(RESNET18, network_of(run), len(classes.classes))
    if start.warm and start.kind == 'ResNet':
        weights = read_state_dict(static)
        model.backbone.load_state_dict({name.removeprefix('backbone.'): value for name, value in weights.items()
                                        if name.startswith('backbone.')})
    elif start.warm:
        warm_start(model, read_state_dict(static), parts=['backbone'], noise=NOISE)
    rates = kernel_rates(model) if start.scaled else {}
    return model, fit(model, classes, schedule.of_fine_tuning(), run, False, rates)


def task_of(splits: dict[str, Glyphs], schedule: Schedule) -> dict:
    """What all runs of a file have in common."""
    from glyph_task import digest
    counts = {name: glyphs.images[..., 0, 0].numel() for name, glyphs in splits.items()}
    return dict(pictures=digest(splits), classes=len(splits['val'].classes), families=len(splits['val'].families),
                **counts, **schedule._asdict())


def read_results(path: Path, task: dict | None = None) -> dict:
    """What a file of results holds, or that of a new one.

    Args:
        path (Path): need not be there.
        task (dict, optional): what its runs must have in common; else it is not looked at.

    Raises:
        ValueError: it is damaged, or its runs are of another task.
    """
    if not path.exists():
        return dict(task=task, runs={})
    if not path.is_file():
        raise ValueError(f'{path} is no file: name one by --results')
    try:
        results = json.loads(path.read_text(encoding='utf-8'))
        valid = isinstance(results['task'], dict) and all(
            isinstance(values['correct'], list) and values['seconds'] >= 0 for values in results['runs'].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is damaged ({type(error).__name__}: {error}). {RESTORE}') from error
    if not valid:
        raise ValueError(f'{path} is damaged (it holds no results of this comparison). {RESTORE}')
    if task is not None and results['task'] != task:
        others = ', '.join(f'{key} {results["task"].get(key)} in place of {task[key]}' for key in task
                           if results['task'].get(key) != task[key])
        raise ValueError(f'{path} holds results of another task: {others}. Draw the data set by glyphs.py --like '
                         'docs/glyph_fonts.json, or name another file by --results')
    return results


RESTORE = 'It was left as it is: restore it (`git checkout docs/comparison.json`), or move it away, and all runs are ' \
          'done anew'


def write_results(path: Path, results: dict) -> None:
    """A line for each run."""
    runs = ',\n'.join(f'  {json.dumps(name, ensure_ascii=False)}: {json.dumps(values, allow_nan=False)}'
                      for name, values in results['runs'].items())
    write_text(path, f'{{\n "task": {json.dumps(results["task"])},\n "runs": {{\n{runs}\n }}\n}}\n')


def seconds_of(runs: Iterable[Run], results: Mapping[str, dict]) -> float | None:
    """How long they take, by what runs of the same network took, or the average one; None: there is none yet."""
    if not results:
        return None
    known: dict[str, list[float]] = {}
    for name, values in results.items():
        known.setdefault(name.rpartition(', lr ')[0], []).append(values['seconds'])
    average = [values['seconds'] for values in results.values()]

    def expected(run: Run) -> float:
        own = known.get(f'{run.family}, {run.method}')
        if own is None and run.family == LONG:
            return LONGER * statistics.mean(known.get(f'{RESNET18}, {run.method}', average))
        return statistics.mean(own or average)

    return sum(map(expected, runs))


def in_words(seconds: float | None) -> str:
    """A time for a user."""
    if seconds is None:
        return 'unknown'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'


def accuracy(values: dict, classes: int) -> float:
    """In percent."""
    return 100 * sum(values['correct']) / (classes * len(values['correct']))


def classes_of(run: Run, task: dict) -> int:
    """That it tells apart."""
    return task['classes'] // 2 if run.family == WARM else task['classes']


def work_off(args: argparse.Namespace, splits: dict[str, Glyphs], task: dict, schedule: Schedule) -> None:
    """Do what is left, run by run; what another process has done meanwhile is kept and not done again."""
    done = 0
    while True:
        results = read_results(args.results, task)
        runs = chosen(args.only, results['runs'])
        left = [run for run in runs if run.name not in results['runs']]
        if not left:
            print(f'all {len(runs)} runs are in {args.results}')
            return
        run = left[0]
        values = execute(run, splits, schedule, args.folder)
        results = read_results(args.results, task)
        results['runs'][run.name] = values
        write_results(args.results, results)
        done += 1
        print(f'[{done}, {len(left) - 1} left] {run.name}: {accuracy(values, classes_of(run, task)):.2f}% in '
              f'{values["seconds"]:.0f} s; about {in_words(seconds_of(left[1:], results["runs"]))} of one core left',
              flush=True)


def repeat(args: argparse.Namespace, splits: dict[str, Glyphs], task: dict, schedule: Schedule) -> None:
    """Do runs again that have results, and compare.

    Raises:
        ValueError: none has, or one comes out otherwise.
    """
    results = read_results(args.results, task)['runs']
    runs = [run for run in chosen([args.repeat], results)
            if run.name in results and fnmatch.fnmatchcase(run.name, args.repeat)]
    if not runs:
        raise ValueError(f'{args.results} has no run {args.repeat!r} to repeat; --list shows which are done')
    for run in runs:
        values, classes = execute(run, splits, schedule, args.folder), classes_of(run, task)
        before, after = accuracy(results[run.name], classes), accuracy(values, classes)
        if values['correct'] != results[run.name]['correct']:
            raise ValueError(f'{run.name} comes out otherwise: {after:.2f}% in place of {before:.2f}%. Rounding may '
                             'differ between processors and versions of torch: this is '
                             f'{values["machine"]}, that was {results[run.name].get("machine", "not recorded")}')
        print(f'{run.name}: {after:.2f}% as before, in every family of the fonts', flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, default=ROOT / 'data' / 'glyphs', help='the pictures (%(default)s)')
    parser.add_argument('--results', type=Path, default=RESULTS, help='(%(default)s)')
    parser.add_argument('--folder', type=Path, default=ROOT / 'work_dirs' / 'comparison',
                        help='where static networks are kept that others start as (%(default)s)')
    parser.add_argument('--only', nargs='+', metavar='RUN', default=['*'],
                        help="runs to do, by their names or patterns such as 'ResNet-18, SE, *'; learning rates are "
                             'chosen first')
    parser.add_argument('--repeat', metavar='RUN', help='do again what has a result, and compare')
    parser.add_argument('--list', action='store_true', help='show what there is and what is done; nothing is run')
    args = parser.parse_args(argv)
    try:
        if args.list:
            results = read_results(args.results)['runs']
            runs = chosen(args.only, results)
            for run in runs:
                print('done' if run.name in results else '-   ', run.name)
            left = [run for run in runs if run.name not in results]
            print(f'{len(runs) - len(left)} of {len(runs)} runs are done; the others take about '
                  f'{in_words(seconds_of(left, results))} of one core')
            return
        from glyph_task import load_glyphs
        chosen([args.repeat or '*', *args.only], read_results(args.results)['runs'])  # before pictures are read
        splits, schedule = load_glyphs(args.data), Schedule()
        (repeat if args.repeat else work_off)(args, splits, task_of(splits, schedule), schedule)
    except ValueError as error:
        raise SystemExit(f'{parser.prog}: {error}') from error


if __name__ == '__main__':
    main()

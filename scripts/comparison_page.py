#!/usr/bin/env python3
"""Write the tables and figures of docs/comparison.md, of what scripts/compare_methods.py has found so far."""
from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import compare_methods
import numpy as np
from compare_methods import (
    COMPARED,
    FAMILIES,
    LONG,
    LONGER,
    MOBILENET,
    NEUTRAL,
    NORMS,
    OTHER_RATES,
    RATES,
    RESNET18,
    RESNET26,
    RESULTS,
    STARTS,
    WARM,
    Run,
)
from pages import ROOT, page_with

from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.atomic_write import atomic_write, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = ROOT / 'docs' / 'comparison.md'
FIGURES = {'comparison_resnet': (RESNET18, RESNET26), 'comparison_mobilenet': (MOBILENET, )}  # of which families
DRAWS = 10_000
NONE = '–'  # what there is no result of yet
ABLATIONS = {  # rows of the table, by the paper's table that they are like
    'annealing (Table 10)': ('ODConv (1×)', 'ODConv (1×), no annealing', 'ODConv (4×)', 'ODConv (4×), no annealing',
                             'DyConv (4×)', 'DyConv (4×), no annealing'),
    'attentions (Table 7)': ('ODConv (1×), spatial alone', 'ODConv (1×), channel alone', 'ODConv (1×), filter alone',
                             'ODConv (4×), kernel alone', 'ODConv (1×)', 'ODConv (4×)'),
    'n (Table 6)': ('ODConv (1×)', 'ODConv (2×)', 'ODConv (4×)', 'ODConv (8×)'),
    'r (Table 5)': ('ODConv (1×), r = 1/4', 'ODConv (1×), r = 1/8', 'ODConv (1×), r = 1/16'),
}
SUMMARY = {RESNET18: 'ResNet-18', LONG: f'ResNet-18, {LONGER} × as long', RESNET26: 'ResNet-26',
           MOBILENET: 'MobileNetV2', WARM: 'ResNet-18 from a [warm start](#warm-start-on-a-larger-task)'}


class Estimate(NamedTuple):
    """A mean, and the interval that 95% of the means of other draws lie in, all in percent."""

    mean: float
    low: float
    high: float


@functools.cache
def draws(count: int, seed: int) -> np.ndarray:
    """Weights of so many things in each draw of as many of them with replacement, ``float[DRAWS, count]``."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS) / count


def estimate(counts: np.ndarray, classes: int) -> Estimate:
    """Of characters recognised of each family with each seed, or of differences of such, ``int[seeds, families]``.

    A draw takes as many seeds and as many families as there are, with replacement.
    """
    seeds, families = counts.shape
    values = 100 / classes * (draws(seeds, 0) @ counts * draws(families, 1)).sum(1)
    return Estimate(100 / classes * counts.mean(), *np.percentile(values, [2.5, 97.5]).tolist())


class Row(NamedTuple):
    """A network with a learning rate, and what all its runs found."""

    runs: dict[int, dict]  # by seed
    classes: int

    def counts(self, seeds: Sequence[int]) -> np.ndarray:
        """Characters recognised, ``int[seeds, families]``."""
        return np.array([self.runs[seed]['correct'] for seed in seeds])

    def first(self, key: str) -> float:
        """What all runs have alike."""
        return next(iter(self.runs.values()))[key]

    def loss(self) -> str:
        """The mean over the seeds of which it is known; None where it was not finite."""
        values = [values['loss'] for values in self.runs.values() if 'loss' in values]
        return NONE if not values else 'not finite' if None in values else f'{np.mean(values):.2f}'

    def milliseconds(self, key: str) -> str:
        """Of the first seed: others may have run on other machines."""
        return f'{self.runs[0][key]:.2f}' if 0 in self.runs else NONE

    def accuracy(self) -> Estimate:
        """In percent."""
        return estimate(self.counts(sorted(self.runs)), self.classes)

    def against(self, other: Row) -> Estimate | None:
        """What it recognises more than another one with the same seeds, in points; None: there are none."""
        seeds = sorted(set(self.runs) & set(other.runs))
        return estimate(self.counts(seeds) - other.counts(seeds), self.classes) if seeds else None


def row_of(results: dict, family: str, method: str, part: float = 1) -> Row:
    """All seeds of a network, with the learning rate of its family or a part of it."""
    rate = part * compare_methods.rate_of(family, results['runs'])
    runs = {seed: Run(family, method, rate, seed) for seed in range(100)}
    return Row({seed: results['runs'][run.name] for seed, run in runs.items() if run.name in results['runs']},
               compare_methods.classes_of(runs[0], results['task']))


def cells(row: Row, base: Row) -> list[str]:
    """Seeds, accuracy, and difference from the base."""
    if not row.runs:
        return [NONE] * 3
    value, gain = row.accuracy(), None if row is base else row.against(base)
    return [str(len(row.runs)), f'{value.mean:.2f} [{value.low:.1f}, {value.high:.1f}]',
            NONE if gain is None else f'{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]']


def costs(row: Row) -> list[str]:
    """Parameters in thousands and multiply-adds in millions."""
    return [f'{row.first("params") / 1e3:.0f}', f'{row.first("madds") / 1e6:.2f}'] if row.runs else [NONE] * 2


def render_family(results: dict, family: str) -> str:
    """The table of the methods of a family of networks."""
    base, rows = row_of(results, family, 'static'), []
    for method in COMPARED[family]:
        row = base if method == 'static' else row_of(results, family, method)
        others = [row_of(results, family, method, part) for part in OTHER_RATES]
        rows.append([method, *costs(row), *cells(row, base),
                     *(f'{other.accuracy().mean:.2f} ({len(other.runs)})' if other.runs else NONE for other in others),
                     row.loss(), *map(row.milliseconds, ('train_ms', 'test_ms'))])
    return markdown_table(['network', 'parameters (K)', 'multiply-adds (M)', 'seeds', 'accuracy (%)',
                           'more than static (points)', 'at half of the rate (seeds)', 'at the double (seeds)',
                           'loss at the end', 'training (ms a picture)', 'inference (ms a picture)'], rows)


def render_longer(results: dict) -> str:
    """The table of the methods that were trained for longer, beside what they reached before."""
    short_base, base, rows = row_of(results, RESNET18, 'static'), row_of(results, LONG, 'static'), []
    for method in COMPARED[LONG]:
        short = short_base if method == 'static' else row_of(results, RESNET18, method)
        row = base if method == 'static' else row_of(results, LONG, method)
        rows.append([method, cells(short, short_base)[2], *cells(row, base), row.loss()])
    return markdown_table(['network', 'more than static (points), above', 'seeds', f'accuracy (%), {LONGER} × as long',
                           f'more than static (points), {LONGER} × as long', 'loss at the end'], rows)


def render_summary(results: dict) -> str:
    """Which methods are ahead of the static network or behind it, as far as the intervals tell, a line for each family.
    """
    lines = []
    for family, about in SUMMARY.items():
        methods = STARTS if family == WARM else COMPARED[family]
        static, found = 'static ResNet18' if family == WARM else 'static', {'ahead': [], 'level': [], 'behind': []}
        base, seeds = row_of(results, family, static), set()
        for method in methods:
            row = row_of(results, family, method)
            gain = None if method == static else row.against(base)
            if gain is not None:
                seeds.add(len(set(row.runs) & set(base.runs)))
                found['ahead' if gain.low > 0 else 'behind' if gain.high < 0 else 'level'].append(
                    f'{method} ({gain.mean:+.1f})')
        told = '; '.join(f'{kind}: {", ".join(names) or "none"}' for kind, names in found.items())
        if seeds:
            number = ' to '.join(map(str, sorted({min(seeds), max(seeds)})))
            lines.append(f'- **{about}** ({number} seed{"s" * (max(seeds) > 1)}): {told}.\n')
    return ''.join(lines)


def render_gaps(results: dict) -> str:
    """The table of how methods compare with the static ResNet-18 at the same learning rate, with the first seed."""
    rates = OTHER_RATES[0], 1, OTHER_RATES[1]

    def accuracies(method: str) -> dict[float, float]:
        rows = {rate: row_of(results, RESNET18, method, rate).runs for rate in rates}
        return {rate: compare_methods.accuracy(runs[0], results['task']['classes'])
                for rate, runs in rows.items() if 0 in runs}

    static, rows = accuracies('static'), []
    for method in [method for method in COMPARED[RESNET18] if method != 'static']:
        own = accuracies(method)
        best = f'{max(own.values()) - max(static.values()):+.2f}' if len(own) == len(static) == len(rates) else NONE
        rows.append([method, *(f'{own[rate] - static[rate]:+.2f}' if rate in own and rate in static else NONE
                               for rate in rates), best])
    return markdown_table(['more than static (points), seed 0', 'half of the rate', 'the rate', 'its double',
                           'best of three each'], rows)


def render_neutral(results: dict, family: str) -> str:
    """The table of methods whose attentions are the same for all pictures at first or always, or have another norm,
    beside those that are as in their papers."""
    base, rows = row_of(results, family, 'static'), []
    for name in (*NEUTRAL[family], *NORMS[family]):
        row, own = (row_of(results, family, which) for which in (name, name.partition(', ')[0]))
        rows.append([name, *cells(row, base), cells(row, own)[2], cells(own, base)[2]])
    return markdown_table(['network', 'seeds', 'accuracy (%)', 'more than static (points)',
                           'more than as in the paper (points)', 'that more than static, above'], rows)


def render_rates(results: dict) -> str:
    """The grid by which learning rates are chosen."""
    rows = []
    for family in FAMILIES:
        runs = [results['runs'].get(run.name) for run in compare_methods.grid(family)]
        values = [NONE if run is None else f'{compare_methods.accuracy(run, results["task"]["classes"]):.2f}'
                  for run in runs]
        best = RATES.index(compare_methods.rate_of(family, results['runs']))
        if all(runs):
            values[best] = f'**{values[best]}**'
        rows.append([f'static {family}', *values])
    return markdown_table(['accuracy (%), seed 0', *(f'{rate:g}' for rate in RATES)], rows)


def render_starts(results: dict) -> str:
    """The table of the warm start."""
    base = row_of(results, WARM, 'static ResNet18')
    rows = [[method, *cells(base if method == 'static ResNet18' else row_of(results, WARM, method), base)]
            for method in STARTS]
    return markdown_table(['network', 'seeds', 'accuracy (%)', 'more than static (points)'], rows)


def render_ablations(results: dict) -> str:
    """The table of what is left out or changed."""
    base, rows = row_of(results, RESNET18, 'static'), []
    for about, methods in ABLATIONS.items():
        for method in methods:
            row = row_of(results, RESNET18, method)
            rows.append([about, method, *costs(row), *cells(row, base)])
            about = ''
    return markdown_table(['', 'network', 'parameters (K)', 'multiply-adds (M)', 'seeds', 'accuracy (%)',
                           'more than static (points)'], rows, text_columns=(0, 1))


def render_progress(results: dict) -> str:
    """What is done, and how long it took and will take."""
    rows, seen = [], set()
    for about, runs in compare_methods.plan(results['runs']).items():
        runs = [run for run in runs if run not in seen]
        seen.update(runs)
        done = [results['runs'][run.name] for run in runs if run.name in results['runs']]
        left = [run for run in runs if run.name not in results['runs']]
        rows.append([about, f'{len(done)} of {len(runs)}',
                     compare_methods.in_words(sum(values['seconds'] for values in done)),
                     compare_methods.in_words(compare_methods.seconds_of(left, results['runs'])) if left else NONE])
    every = compare_methods.planned(results['runs'])
    left = [run for run in every if run.name not in results['runs']]
    took = sum(results['runs'][run.name]['seconds'] for run in every if run.name in results['runs'])
    rows.append(['**all**', f'{len(every) - len(left)} of {len(every)}', compare_methods.in_words(took),
                 compare_methods.in_words(compare_methods.seconds_of(left, results['runs'])) if left else NONE])
    return markdown_table(['runs', 'done', 'they took', 'the others take about'], rows)


def render_load(results: dict) -> str:
    """How busy the machine was whose times are shown."""
    loads = [values['load'] for name, values in results['runs'].items() if name.endswith(', seed 0')]
    low, middle, high = np.quantile(loads, [.1, .5, .9])
    return f'The load of the machine after each run with seed 0 was {middle:.1f}, {low:.1f} to {high:.1f} in four of ' \
           'five.\n'


def render_machines(results: dict) -> str:
    """How many runs were made where."""
    found = Counter(values.get('machine', 'not recorded') for values in results['runs'].values())
    return ''.join(f'- {machine}: {count} runs\n' for machine, count in found.most_common())


def any_runs(results: dict, families: Sequence[str]) -> bool:
    """Whether there is anything to draw of some families of networks."""
    return any(row_of(results, family, method).runs for family in families for method in COMPARED[family])


def parts(results: dict) -> dict[str, str]:
    """What the page shows of the results, by the names of its markers."""
    families = {family: render_family(results, family) for family in FAMILIES}
    figures = {name: f'![Accuracy of {" and ".join(members)} over parameters and multiply-adds](images/{name}.png)\n'
               if any_runs(results, members) else '' for name, members in FIGURES.items()}
    return {'summary': render_summary(results), 'rates': render_rates(results), **families, **figures,
            **{f'neutral {family}': render_neutral(results, family) for family in NEUTRAL},
            'gaps': render_gaps(results), 'longer': render_longer(results),
            'starts': render_starts(results), 'ablations': render_ablations(results),
            'progress': render_progress(results), 'load': render_load(results),
            'machines': render_machines(results)}


def draw(results: dict, families: Sequence[str]) -> Figure:
    """Accuracy over what networks cost."""
    from dynconv_mm.analysis.result_figures import Point, trade_off_figure

    groups: dict[str, list[Point]] = {}
    for family in families:
        for method in COMPARED[family]:
            row = row_of(results, family, method)
            if row.runs:
                value = row.accuracy()
                groups.setdefault(method, []).append(Point(family, row.first('params'), row.first('madds'),
                                                           value.mean, (value.low, value.high)))
    return trade_off_figure(groups, 'accuracy (%)')


def main(argv: list[str] | None = None) -> None:
    from dynconv_mm.analysis.figures import to_png
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--results', type=Path, default=RESULTS, help='(%(default)s)')
    args = parser.parse_args(argv)
    try:
        results = compare_methods.read_results(args.results)
    except ValueError as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    if not results['runs']:
        raise SystemExit(f'{parser.prog}: {args.results} has no results yet: `python scripts/compare_methods.py`')
    write_text(PAGE, page_with(PAGE.read_text(encoding='utf-8'), 'comparison_page', parts(results)))
    for name, families in FIGURES.items():
        if not any_runs(results, families):
            continue
        with atomic_write(ROOT / 'docs' / 'images' / f'{name}.png') as partial:
            partial.write_bytes(to_png(draw(results, families)))


if __name__ == '__main__':
    main()

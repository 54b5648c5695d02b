#!/usr/bin/env python3
"""Draw accuracy over parameters and multiply-adds: of trainings, from their logs, and as the papers report them.

As ODConv's Fig. 3 and DCDC's Fig. 4.
"""
from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from runs import METRIC, add_runs, check_groups, draw_and_write, read_runs

if TYPE_CHECKING:
    from dynconv_mm.analysis.result_figures import Point
    from dynconv_mm.analysis.training_log import TrainingLog

ROOT = Path(__file__).resolve().parents[2]


def reported(pattern: str, result: str) -> dict[str, Point]:
    """The networks of the model index whose names match a pattern, with what a paper reports of them.

    Raises:
        ValueError: there is none with such a result, or a network has two of them.
    """
    from mmengine.config import Config

    from dynconv_mm.analysis.result_figures import Point
    index = [entry for file in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
             for entry in yaml.safe_load((ROOT / file).read_text())['Models']]
    points, known = {}, set()
    for entry in index:
        if not fnmatch.fnmatchcase(entry['Name'], pattern):
            continue
        results = {name: value for part in entry.get('Results', []) for name, value in part['Metrics'].items()}
        known |= results.keys()
        found = [name for name in results if result in (name, name.partition(' (')[0])]
        if len(found) > 1:
            raise ValueError(f'--result {result!r}: {entry["Name"]} has {" and ".join(map(repr, found))}; name one')
        if found:
            costs = entry['Metadata']
            madds = costs.get('FLOPs') or counted(Config.fromfile(ROOT / entry['Config']))[1]
            points[entry['Name']] = Point(entry['Name'], costs['Parameters'], madds, results[found[0]])
    if not points:
        raise ValueError(f'no network of the model index is named {pattern!r} and has a result {result!r}'
                         + (f', but {", ".join(sorted(map(repr, known)))}' if known else ''))
    return points


def counted(config) -> tuple[int, int]:
    """Parameters and multiply-adds of the network of a config."""
    from dynconv_mm.analysis.complexity import build_on_meta, measure_complexity
    found = measure_complexity(build_on_meta(config))
    return found.params, found.total_madds


def trained(log: TrainingLog, metric: str, scale: float) -> Point:
    """The network of a training, with its last result times ``scale``.

    Raises:
        ValueError: its config is not beside its log, or the log has no such result.
    """
    from mmengine.config import Config

    from dynconv_mm.analysis.result_figures import Point
    configs = sorted(log.path.glob('*.py')) if log.path.is_dir() else []
    if len(configs) != 1:
        raise ValueError(f'{log.path} must be a --work-dir of `mim train` with one config in it, whose network is '
                         f'counted, but has {len(configs)}')
    return Point(configs[0].stem, *counted(Config.fromfile(configs[0])), scale * list(log.series(metric).values())[-1])


def draw(args: argparse.Namespace):
    """The figure.

    Raises:
        FileNotFoundError, ValueError: of the user's making; the message says what to do.
    """
    from dynconv_mm.analysis.result_figures import in_percent, metric_label, trade_off_figure
    check_groups('--models', args.models)
    groups: dict[str, list[Point]] = {}
    for label, *patterns in args.models:
        points: dict[str, Point] = {}
        for pattern in patterns:
            points |= reported(pattern, args.result)
        groups[label] = [*points.values()]
    scale = 1 if in_percent(args.metric) or not args.models else 100  # papers print AP in percent, mmdet does not
    for label, logs in read_runs(args.run).items():
        groups.setdefault(label, []).extend(trained(log, args.metric, scale) for log in logs)
    if not groups:
        raise ValueError('name networks by --models, or trainings by --run')
    return trade_off_figure(groups, metric_label(args.result if args.models else args.metric))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', action='append', default=[], metavar=('LABEL', 'PATTERN'),
                        help="networks of one line, such as DCDC 'dcdc-resnet*_8xb32_in1k', with the papers' results; "
                        'can be given several times')
    add_runs(parser, 'trainings of one line, one for each network: the --work-dir of `mim train`; can be given several '
             'times')
    parser.add_argument('--result', default='Top 1 Accuracy', metavar='NAME', help="the papers' result, as the "
                        'metafiles in configs/ name it (default: %(default)s)')
    parser.add_argument('--metric', **METRIC)
    draw_and_write(parser, draw, argv)


if __name__ == '__main__':
    main()

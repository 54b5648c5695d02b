#!/usr/bin/env python3
"""COCO's figures of saved predictions, several side by side, as `mim test` prints them.

RESULTS are files that mmdet's metrics write: PREFIX.bbox.json and PREFIX.segm.json of CocoMetric, PREFIX.panoptic.json
of PanopticQualityMetric, which needs the folder PREFIX.panoptic beside it; or PREFIX alone, for all of these that there
are. Files of one prefix are one row.
"""
from __future__ import annotations

import argparse
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dynconv_mm.evaluation.saved_results import Evaluation

METRICS = dict(bbox='Boxes', segm='Masks', panoptic='Panoptic segments')


class Results(NamedTuple):
    """The files of a row, by metric."""

    prefix: str
    files: dict[str, Path]


def ending_of(path: Path) -> str | None:
    """The metric that a file's name says it is for."""
    return next((metric for metric in METRICS if path.name.endswith(f'.{metric}.json')), None)


def group(paths: list[str], metrics: list[str] | None) -> list[Results]:
    """The rows, in the order of their first files, with files of the chosen metrics or of all that there are.

    Raises:
        FileNotFoundError: there is no such file, and none of that prefix.
    """
    rows: dict[str, dict[str, Path]] = {}
    for name in paths:
        path = Path(name)
        if (metric := ending_of(path)) is not None:
            found = {metric: path}
            prefix = name[:-len(f'.{metric}.json')]
        elif path.is_file():  # by another program, which may hold boxes and masks
            found = dict.fromkeys(metrics or ['bbox'], path)
            prefix = name.removesuffix('.json')
        else:
            found = {metric: Path(f'{name}.{metric}.json') for metric in METRICS
                     if Path(f'{name}.{metric}.json').is_file()}
            prefix = name
            if not found:
                raise FileNotFoundError(f'there is no file {name!r}, and none named {name}.bbox.json, .segm.json or '
                                        '.panoptic.json')
        rows.setdefault(prefix, {}).update({metric: file for metric, file in found.items()
                                            if metrics is None or metric in metrics})
    return [Results(prefix, files) for prefix, files in rows.items()]


def evaluate(rows: list[Results], metrics: list[str] | None, ann_file: Path,
             seg_dir: Path | None) -> dict[str, list[Evaluation | None]]:
    """By metric, the figures of each row that has a file of it.

    Raises:
        FileNotFoundError, ValueError: the message names the file and says what is wrong.
    """
    from rich.progress import track

    from dynconv_mm.evaluation import saved_results
    annotations = saved_results.read_annotations(ann_file)
    panoptic = saved_results.is_panoptic(annotations)
    chosen = metrics or [metric for metric in METRICS if any(metric in row.files for row in rows)
                         and panoptic == (metric == 'panoptic')]
    for metric in chosen:
        if panoptic != (metric == 'panoptic'):
            kind, other = ('panoptic', 'instances') if panoptic else ('instances', 'panoptic segments')
            raise ValueError(f'{ann_file} has annotations of {kind}, and {metric} needs those of {other}: evaluate it '
                             'in a run of its own')
        if not any(metric in row.files for row in rows):
            raise ValueError(f'there are no results for {metric} among the files given: name PREFIX.{metric}.json')
    if not chosen:
        raise ValueError(f'none of the results can be compared with {ann_file}, which has annotations of '
                         + ('panoptic segments' if panoptic else 'instances'))
    found: dict[str, list[Evaluation | None]] = {metric: [] for metric in chosen}
    for metric, row in track([(metric, row) for metric in chosen for row in rows], 'evaluating', transient=True):
        if metric not in row.files:
            found[metric].append(None)
        elif metric == 'panoptic':
            found[metric].append(saved_results.evaluate_panoptic(
                row.files[metric], row.files[metric].with_suffix(''), ann_file, seg_dir or ann_file.with_suffix('')))
        else:
            found[metric].append(saved_results.evaluate_detections(row.files[metric], metric, annotations))
    return found


def tables(found: dict[str, list[Evaluation | None]], names: list[str],
           classwise: bool) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of each table."""
    made = []
    for metric, evaluations in found.items():
        present = [(name, evaluation) for name, evaluation in zip(names, evaluations) if evaluation is not None]
        columns = list(present[0][1].figures)
        made.append((METRICS[metric], ['', *columns],
                     [[name, *(number(evaluation.figures[column]) for column in columns)]
                      for name, evaluation in present]))
        if classwise:
            for name, evaluation in present:
                columns = list(next(iter(evaluation.by_category.values())))
                made.append((f'{METRICS[metric]} of {name}, by category', ['', *columns],
                             [[category, *(number(values[column]) for column in columns)]
                              for category, values in evaluation.by_category.items()]))
    return made


def number(value: float) -> str:
    return '–' if isnan(value) else f'{value:.1f}'


def markdown(made: list[tuple[str, list[str], list[list[str]]]], notes: list[str]) -> str:
    parts = []
    for title, header, rows in made:
        lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
        parts.append(f'## {title}\n\n' + '\n'.join('| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |'
                                                   for line in lines))
    return '\n\n'.join([*parts, *notes]) + '\n'


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', nargs='+', metavar='RESULTS', help='predictions: files or prefixes')
    parser.add_argument('annotations', type=Path, metavar='ANN.json', help='annotations of the data set')
    parser.add_argument('--metric', nargs='+', choices=list(METRICS),
                        help='what to evaluate (default: all that there are files for)')
    parser.add_argument('--names', nargs='+', metavar='NAME', help='of the rows (default: the prefixes)')
    parser.add_argument('--seg-dir', type=Path, metavar='DIR',
                        help='folder of the annotated panoptic PNGs (default: ANN.json without .json)')
    parser.add_argument('--classwise', action='store_true', help='figures of each category too')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='write the tables there too, in Markdown')
    args = parser.parse_args(argv)
    try:
        rows = group(args.results, args.metric)
        if args.names and len(args.names) != len(rows):
            raise ValueError(f'--names must be as many as the rows, {len(rows)}, one for each of '
                             f'{", ".join(row.prefix for row in rows)}, but are {len(args.names)}')
        names = args.names or [row.prefix for row in rows]
        found = evaluate(rows, args.metric, args.annotations, args.seg_dir)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise SystemExit(f'coco_eval: {error}') from error

    from rich.console import Console
    from rich.table import Table

    from dynconv_mm.atomic_write import write_text
    made = tables(found, names, args.classwise)
    notes = [f'Note: {note}.' for evaluations in found.values() for evaluation in evaluations if evaluation
             for note in evaluation.notes]
    for title, header, lines in made:
        table = Table(title=title, title_justify='left')
        for column, heading in enumerate(header):
            table.add_column(heading, justify='right' if column else 'left', overflow='fold')
        for line in lines:
            table.add_row(*line)
        Console().print(table)
    for note in notes:
        print(note)
    if args.out:
        write_text(args.out, markdown(made, notes))
        print(f'written: {args.out}')


if __name__ == '__main__':
    main()

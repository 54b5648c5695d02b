#!/usr/bin/env python3
"""Set out speed as ODConv's tables do: images a second (Tables 8 and 9), and what a training takes (Table 17).

From the JSON files that tools/analysis_tools/benchmark.py writes, and from the logs of trainings.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

from runs import add_runs, check_groups, file_to_write, read_runs

EXPECTED = "expected is a JSON file of tools/analysis_tools/benchmark.py, whose 'results' have"
IMAGENET = 1_281_167  # images to train on
TRAINING = ['network', 'batch (s)', 'epoch (min)', 'total (h)']


def read_results(path: Path) -> list[dict]:
    """The measurements of a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another format; the message says where.
    """
    text = path.read_text(encoding='utf-8', errors='replace')
    try:
        results = json.loads(text)['results']
        wanted = {'network', 'plan', 'setting', 'milliseconds'}
        for number, result in enumerate(results):
            lacking = wanted - result.keys() | {'training', 'batch', 'threads', 'device'} - result['setting'].keys()
            if lacking:
                raise ValueError(f'result {number} has no {", ".join(sorted(lacking))}')
            for name, value in (('milliseconds', result['milliseconds']), *result['setting'].items()):
                if name in ('milliseconds', 'batch', 'threads') and not (isinstance(value, (int, float)) and value > 0):
                    raise ValueError(f'{name} of result {number} is {value!r}, no positive number')
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}, line {error.lineno}: {EXPECTED} them, but {error.msg}') from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else 'it has none'
        raise ValueError(f'{path}: {EXPECTED} network, plan, setting and milliseconds, but {reason}') from error
    return results


def label(result: dict) -> str:
    """A network, and how it is executed where that is not the package's choice."""
    return result['network'] + ('' if result['plan'] == 'auto' else f' ({result["plan"]})')


def where(setting: dict) -> str:
    """On what it was measured."""
    extras = [setting.get('dtype', 'float32')] if setting.get('dtype', 'float32') != 'float32' else []
    extras += ['compiled'] * bool(setting.get('compile')) + ['channels last'] * bool(setting.get('channels_last'))
    threads = f'{setting["threads"]} thread{"s" * (setting["threads"] > 1)}'
    device = 'GPU' if setting['device'] == 'cuda' else f'CPU, {threads}'
    size = setting.get('size', 224), setting.get('width') or setting.get('size', 224)
    extras += [f'{size[0]}×{size[1]}'] if size != (224, 224) else []
    runtime = [] if setting.get('runtime', 'pytorch') == 'pytorch' else [setting['runtime']]
    return ', '.join([*runtime, device, f'batch {setting["batch"]}', *extras])


def inference_table(results: list[dict]) -> str:
    """Images a second, a column for each setting."""
    from dynconv_mm.analysis.markdown import markdown_table
    speeds: dict[str, dict[str, float]] = {}
    columns: dict[str, None] = {}
    for result in results:
        setting = result['setting']
        if not setting['training']:
            columns.setdefault(where(setting))
            speeds.setdefault(label(result), {})[where(setting)] = 1000 * setting['batch'] / result['milliseconds']
    rows = [[name, *(f'{found[column]:.1f}' if column in found else '–' for column in columns)]
            for name, found in speeds.items()]
    return markdown_table(['images a second', *columns], rows)


def training_row(name: str, seconds: float, minutes: float, hours: float) -> list[str]:
    """A row of a table of trainings."""
    return [name, f'{seconds:.3f}', *(f'{value:.1f}' if value >= 1 else f'{value:.2g}' for value in (minutes, hours))]


def training_table(results: list[dict], images: int, epochs: int) -> str:
    """What trainings would take by the time of a step, without loading and validation."""
    from dynconv_mm.analysis.markdown import markdown_table
    rows = []
    for result in results:
        if result['setting']['training']:
            seconds = result['milliseconds'] / 1000
            minutes = seconds * images / result['setting']['batch'] / 60
            rows.append(training_row(f'{label(result)}, {where(result["setting"])}', seconds, minutes,
                                     minutes * epochs / 60))
    return markdown_table(TRAINING, rows)


def render(args: argparse.Namespace) -> str:
    """The tables that there are figures for.

    Raises:
        FileNotFoundError, ValueError: of the user's making; the message says what to do.
    """
    from dynconv_mm.analysis.markdown import markdown_table
    from dynconv_mm.analysis.training_log import training_cost
    check_groups('--run', args.run)
    results = [result for path in args.files for result in read_results(path)]
    parts = []
    if any(not result['setting']['training'] for result in results):
        parts += ['Inference', inference_table(results)]
    if any(result['setting']['training'] for result in results):
        parts += [f'Training of {args.images:,} images for {args.epochs} epochs, by the time of a step',
                  training_table(results, args.images, args.epochs)]
    if args.run:
        rows = [training_row(name + (f', {number} of {len(logs)}' if len(logs) > 1 else ''), *training_cost(log))
                for name, logs in read_runs(args.run).items() for number, log in enumerate(logs, 1)]
        parts += ['Training, as logged', markdown_table(TRAINING, rows)]
    if not parts:
        raise ValueError('name files of tools/analysis_tools/benchmark.py, or trainings by --run')
    return '\n'.join(f'**{part}**\n' if index % 2 == 0 else part for index, part in enumerate(parts))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', type=Path, metavar='FILE',
                        help='JSON files of tools/analysis_tools/benchmark.py')
    add_runs(parser, 'a network and its trainings: the --work-dir of `mim train`; can be given several times')
    parser.add_argument('--images', type=int, default=IMAGENET, metavar='N',
                        help='of an epoch (default: %(default)s, ImageNet)')
    parser.add_argument('--epochs', type=int, default=100, metavar='N', help='of a training (default: %(default)s)')
    parser.add_argument('--out', type=file_to_write, metavar='FILE', help='write the tables to this file too, in '
                        'Markdown')
    args = parser.parse_intermixed_args(argv)
    for name in ('images', 'epochs'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1, but is {getattr(args, name)}')
    try:
        text = render(args)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    print(text)
    if args.out is not None:
        from dynconv_mm.atomic_write import write_text
        write_text(args.out, text)
        print(f'written: {args.out}')


if __name__ == '__main__':
    main()

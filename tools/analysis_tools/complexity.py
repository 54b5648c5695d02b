#!/usr/bin/env python3
"""What models cost: parameters, and multiply-adds by what they are spent on, of whole models or layer by layer."""
from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
from pathlib import Path

COLUMNS = {
    'params': 'Params (M)', 'trainable': 'trainable', 'backbone': 'backbone', 'dynamic': 'dynamic extra',
    'madds': 'MAdds (G)', 'conv': 'conv', 'linear': 'linear', 'attention': 'attention', 'mixing': 'mixing',
    'dynamic_conv': 'dynamic conv',
}
PARAMS = ('params', 'trainable', 'backbone', 'dynamic')
LAYER_COLUMNS = ('params', 'madds', 'conv', 'linear', 'attention', 'mixing', 'dynamic_conv')


def load_config(name: str, options: dict | None):
    """A config by its path, or of another package as 'scope::path'.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    from mmengine.config import Config
    if '::' not in name and not Path(name).is_file():
        raise ValueError(f'there is no config {name}')
    try:
        cfg = Config.fromstring(f'_base_ = {name!r}', '.py') if '::' in name else Config.fromfile(name)
    except (OSError, SyntaxError, KeyError, ValueError, ImportError, RuntimeError) as error:
        raise ValueError(f'{name} cannot be read: {error}') from error
    cfg.merge_from_dict(options or {})
    return cfg


def measure(name: str, size: tuple[int, int] | None, options: dict | None):
    """The complexity of the model of a config.

    Raises:
        ValueError: there is no such config, its model cannot be built or cannot be counted.
    """
    from dynconv_mm.analysis.complexity import build_on_meta, measure_complexity
    cfg = load_config(name, options)
    try:
        model = build_on_meta(cfg)
    except (KeyError, TypeError, RuntimeError, NotImplementedError, ImportError) as error:
        raise ValueError(f'{name}: the model cannot be built: {error}') from error
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error
    try:
        return measure_complexity(model, size)
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error


def figures(entry: dict) -> dict[str, int | None]:
    """What stands in the columns, of a model or a layer as :func:`as_dict` has it."""
    return {**{name: entry.get(name) for name in PARAMS}, 'madds': sum(entry['madds'].values()), **entry['madds']}


def as_dict(found, by_layer: bool) -> dict:
    """A complexity for JSON: parameters and multiply-adds are plain counts."""
    entry = dataclasses.asdict(found)
    entry.update(madds=found.madds, total_madds=found.total_madds, not_run=found.not_run)
    if not by_layer:
        del entry['layers']
    return entry


def cell(column: str, value: int | None) -> str:
    """Parameters in millions, multiply-adds in billions."""
    return '–' if value is None else f'{value / 1e6:.2f}' if column in PARAMS else f'{value / 1e9:.3f}'


def table(rows: dict[str, dict[str, int | None]], columns: tuple[str, ...], width: int) -> str:
    """Lines of text: a row a line, or, where ``width`` is too small, its name above its numbers, which stay whole."""
    texts = {'': [COLUMNS[column] for column in columns],
             **{name: [cell(column, values[column]) for column in columns] for name, values in rows.items()}}
    widths = [max(map(len, column)) for column in zip(*texts.values())]
    numbers = {name: '  '.join(text.rjust(space) for text, space in zip(line, widths)) for name, line in texts.items()}
    first, rule = max(map(len, texts)), '-' * len(numbers[''])
    if first + 2 + len(rule) <= width:
        lines = [f'{name:{first}}  {line}' for name, line in numbers.items()]
        return '\n'.join([lines[0], f'{"":{first}}  {rule}', *lines[1:]])
    lines = [part for name, line in list(numbers.items())[1:] for part in (name, f'  {line}')]
    return '\n'.join([f'  {numbers[""]}', f'  {rule}', *lines])


def write_csv(path: Path, entries: dict[str, dict], by_layer: bool) -> None:
    """A line a model, or a line a layer."""
    from dynconv_mm.atomic_write import atomic_write
    columns = LAYER_COLUMNS if by_layer else tuple(COLUMNS)
    with atomic_write(path) as partial, partial.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        about = ('layer', 'type') if by_layer else ('height', 'width', 'proposals', 'detections')
        writer.writerow(['config', *about, *columns])
        for config, entry in entries.items():
            for part in entry['layers'] if by_layer else [entry]:
                values = figures(part)
                said = (part['name'], part['type']) if by_layer else (*entry['size'], entry['proposals'],
                                                                      entry['detections'])
                writer.writerow([config, *said, *(values[column] for column in columns)])


def write_json(path: Path, entries: dict[str, dict]) -> None:
    """All of it, by config."""
    from dynconv_mm.atomic_write import write_text
    write_text(path, json.dumps(entries, indent=2) + '\n')


def report(entries: dict[str, dict], by_layer: bool) -> None:
    """Print tables, and what was counted."""
    width = shutil.get_terminal_size().columns  # 80 where the output is no terminal
    rows = {config: figures(entry) for config, entry in entries.items()}
    print(table(rows, PARAMS, width), table(rows, LAYER_COLUMNS[1:], width), sep='\n\n', end='\n\n')
    for config, entry in entries.items():
        height, width_of_image = entry['size']
        heads = [f'{entry[what]} {what}' for what in ('proposals', 'detections') if entry[what] is not None]
        print(f'{config}: image of {height} × {width_of_image}' + (', ' + ' and '.join(heads) if heads else ''))
        if entry['not_run']:
            print(f'  not run, so without multiply-adds: {", ".join(entry["not_run"])}')
    if by_layer:
        for config, entry in entries.items():
            layers = {f'{layer["name"]} ({layer["type"]})': figures(layer) for layer in entry['layers']}
            print(f'\n{config}\n{table(layers, LAYER_COLUMNS, width)}')


def main(argv: list[str] | None = None) -> None:
    from mmengine.config import DictAction
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG',
                        help="a config file, or another package's such as mmdet::htc/htc_r50_fpn_1x_coco.py")
    parser.add_argument('--size', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'),
                        help='of the image; default: 224 224 for classifiers, 800 1280 for detectors')
    parser.add_argument('--by-layer', action='store_true', help='show each layer too')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the table to this file, in plain counts')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to this file, in plain counts')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='change the configs, such as model.backbone.kernel_num=2')
    args = parser.parse_args(argv)
    for option, path in (('--csv', args.csv), ('--json', args.json)):
        if path is not None and not path.parent.is_dir():
            parser.error(f'{option}: no folder {path.parent}')
    try:
        found = {name: measure(name, args.size and tuple(args.size), args.cfg_options) for name in args.configs}
    except ValueError as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    entries = {name: as_dict(complexity, args.by_layer) for name, complexity in found.items()}
    report(entries, args.by_layer)
    if args.csv is not None:
        write_csv(args.csv, entries, args.by_layer)
    if args.json is not None:
        write_json(args.json, entries)


if __name__ == '__main__':
    main()

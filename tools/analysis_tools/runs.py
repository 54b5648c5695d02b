"""What the tools share that show results: the logs of trainings, names, and files to write."""
from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynconv_mm.analysis.training_log import TrainingLog

METRIC = dict(default='accuracy/top1', metavar='NAME', help='of validation, as the log names it, such as coco/bbox_mAP '
              '(default: %(default)s)')


def add_runs(parser: argparse.ArgumentParser, help: str, required: bool = False) -> None:
    """The option that names trainings."""
    parser.add_argument('--run', nargs='+', action='append', required=required, default=[],
                        metavar=('LABEL', 'WORK_DIR'), help=help)


def read_runs(runs: list[list[str]]) -> dict[str, list[TrainingLog]]:
    """The logs of each label.

    Raises:
        FileNotFoundError, ValueError: of the user's making; the message says what to do.
    """
    from dynconv_mm.analysis.training_log import read_log
    check_groups('--run', runs)
    return {label: [read_log(path) for path in paths] for label, *paths in runs}


def check_groups(option: str, groups: list[list[str]]) -> None:
    """Raise a ValueError unless there are labels, all different, with something behind each."""
    labels = [label for label, *_ in groups]
    for label, *rest in groups:
        if not rest:
            raise ValueError(f'{option} {label} names nothing behind the label')
        if labels.count(label) > 1:
            raise ValueError(f'{option} {label} is there twice: name all that belongs together behind one label')


def file_to_write(path: str) -> Path:
    """The type of an option that names one."""
    if Path(path).is_dir():
        raise argparse.ArgumentTypeError(f'must be a file, but {path} is a folder')
    return Path(path)


def numbered(names: list[str]) -> list[str]:
    """Names that are all different: those that are there several times with a number."""
    return [f'{name} ({names[:index + 1].count(name)})' if names.count(name) > 1 else name
            for index, name in enumerate(names)]


def draw_and_write(parser: argparse.ArgumentParser, draw: Callable[[argparse.Namespace], Figure],
                   argv: list[str] | None) -> None:
    """Parse a command line with ``--out`` besides, and write what ``draw`` makes of it, a PNG, whole or not at all.

    Raises:
        SystemExit: with a message, of a FileNotFoundError or ValueError of ``draw``, which are of the user's making.
    """
    from dynconv_mm.analysis.figures import to_png
    from dynconv_mm.atomic_write import atomic_write
    parser.add_argument('--out', type=file_to_write, required=True, metavar='FILE', help='the PNG to write')
    args = parser.parse_args(argv)
    try:
        figure = draw(args)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    with atomic_write(args.out) as partial:
        partial.write_bytes(to_png(figure))
    print(f'written: {args.out}')

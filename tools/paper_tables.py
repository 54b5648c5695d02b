"""What the tools share that set built models beside the figures of a paper, on a page of docs/."""
from __future__ import annotations

import argparse
import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Figure(NamedTuple):
    """Parameters and multiply-adds, in millions."""

    params: float
    madds: float


@functools.cache
def _read_config(name: str):
    from mmengine.config import Config
    return Config.fromfile(ROOT / 'configs' / name)


def load_config(name: str):
    """A config of configs/, to be changed at will."""
    return copy.deepcopy(_read_config(name))


def build(cfg):
    """The model of a config, on the meta device."""
    import torch
    from mmengine.registry import MODELS, init_default_scope

    import dynconv_mm  # noqa: F401  registers what configs name
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def count_params(model, trainable: bool = False) -> float:
    """All parameters of a model, or those that are trained, in millions."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable) / 1e6


def measure(model) -> Figure:
    """Parameters and multiply-adds of a model for images of 224 × 224."""
    from dynconv_mm.analysis import count_madds
    return Figure(count_params(model), count_madds(model) / 1e6)


def number(value: float | None, digits: int) -> str:
    return '' if value is None else f'{value:.{digits}f}'


def table(header: list[str], rows: list[list[str]], text_columns: int = 1) -> str:
    """Markdown, numbers to the right."""
    rule = ['---'] * text_columns + ['---:'] * (len(header) - text_columns)
    return '\n'.join(f'| {" | ".join(row)} |' for row in (header, rule, *rows)) + '\n'


def write(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    from dynconv_mm.whole_file import whole_file
    with whole_file(path) as partial:
        partial.write_text(text, encoding='utf-8')


def update_page(page: Path, render: Callable[[], str], about: str, argv: list[str] | None) -> None:
    """A tool's command line: write a page, or with ``--check`` fail if it is not up to date.

    Raises:
        SystemExit: the page is not up to date.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if the page is not up to date')
    args = parser.parse_args(argv)
    text, name = render(), f'{page.parent.name}/{page.name}'
    if page.exists() and page.read_text(encoding='utf-8') == text:
        print(f'{name}: up to date')
        return
    if args.check:
        raise SystemExit(f'{parser.prog}: {name} is not up to date; run it without --check')
    write(page, text)
    print(f'{name}: written')

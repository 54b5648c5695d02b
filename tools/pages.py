"""What the tools share that write pages from the models of configs."""
from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent


def load_config(name: str):
    """A config of configs/, or of another package as 'scope::path', to be changed at will."""
    return copy.deepcopy(_read_config(name))


@functools.cache
def _read_config(name: str):
    from mmengine.config import Config, config, utils

    # each time a config inherits one of another package, mmengine looks for the package and reads all its metafiles
    with patch.object(utils, 'load', _cached(utils.load)), \
            patch.object(config, 'is_installed', _cached(config.is_installed)):
        if '::' in name:
            return Config.fromstring(f'_base_ = {name!r}', '.py')
        return Config.fromfile(ROOT / 'configs' / name)


@functools.cache
def _cached(function: Callable) -> Callable:
    """The same function for the same argument, every time: it remembers its results."""
    return functools.cache(function)


def build(cfg):
    """The model of a config, on the meta device."""
    from dynconv_mm.analysis.complexity import build_on_meta
    return build_on_meta(cfg)


def write(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    from dynconv_mm.atomic_write import atomic_write
    with atomic_write(path) as partial:
        partial.write_text(text, encoding='utf-8')


def numbered(names: list[str]) -> list[str]:
    """Names that are all different: those that are there several times with a number."""
    return [f'{name} ({names[:index + 1].count(name)})' if names.count(name) > 1 else name
            for index, name in enumerate(names)]


def markdown_table(header: list[str], rows: Iterable[list[str]], text_columns: Collection[int] = (0, )) -> str:
    """A table, numbers to the right."""
    texts = {index % len(header) for index in text_columns}
    rule = ['---' if index in texts else '---:' for index in range(len(header))]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (header, rule, *rows)) + '\n'

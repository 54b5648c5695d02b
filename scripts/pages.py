"""What the scripts share that write pages."""
from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
END = '<!-- end -->\n'


def load_config(name: str):
    """A config of configs/, or of another package as 'scope::path', to be changed at will."""
    return copy.deepcopy(_read_config(name))


@functools.cache
def _read_config(name: str):
    from mmengine.config import Config

    with packages_read_once():
        if '::' in name:
            return Config.fromstring(f'_base_ = {name!r}', '.py')
        return Config.fromfile(ROOT / 'configs' / name)


@contextmanager
def packages_read_once() -> Iterator[None]:
    """Within it mmengine looks for a package, and reads its metafiles, once. Else it does so each time that a config
    inherits one of that package, which takes most of the time of reading a config."""
    from mmengine.config import config, utils
    with patch.object(utils, 'load', _cached(utils.load)), \
            patch.object(config, 'is_installed', _cached(config.is_installed)):
        yield


@functools.cache
def _cached(function: Callable) -> Callable:
    """The same function for the same argument, every time: it remembers its results."""
    return functools.cache(function)


def build(cfg):
    """The model of a config, on the meta device."""
    from dynconv_mm.analysis.complexity import build_on_meta
    return build_on_meta(cfg)


def page_with(text: str, script: str, parts: dict[str, str]) -> str:
    """A page with what a script writes between its markers replaced; parts by the names that the markers give them."""
    for name, part in parts.items():
        start = f'<!-- written by scripts/{script}.py: {name} -->\n'
        before, rest = text.split(start)
        text = before + start + '\n' + part + '\n' + END + rest.split(END, 1)[1]
    return text

"""Files that are written atomically: whole, or not at all."""
from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes ``path``'s place when all is written.

    If the block fails, ``path`` is as it was, and nothing is left beside it. Missing folders are made.

    Args:
        path (str | Path): the file to write or replace.

    Yields:
        Path: of the same suffix, in a folder beside ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
        partial = Path(folder, path.name)
        yield partial
        partial.replace(path)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding='utf-8')


def remove_leftovers(folder: str | Path) -> None:
    """Remove what calls of :func:`atomic_write` that were killed have left in a folder; none may be running there."""
    for partial in Path(folder).glob('.*.*'):
        name = re.fullmatch(r'\.(.+)\.[a-z0-9_]{8}', partial.name)
        if name and partial.is_dir() and all(file.name == name[1] for file in partial.iterdir()):
            shutil.rmtree(partial)

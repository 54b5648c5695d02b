"""A file is written whole or not at all."""
from __future__ import annotations

import pytest

from dynconv_mm.atomic_write import atomic_write, remove_leftovers


def test_it_makes_folders_and_leaves_nothing_beside_the_file(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'table.md'
    with atomic_write(path) as partial:
        assert partial.suffix == '.md'
        partial.write_text('whole')
        assert not path.exists()
    assert path.read_text() == 'whole'
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / 'table.md'
    path.write_text('old')
    with pytest.raises(KeyError), atomic_write(path) as partial:
        partial.write_text('ne')
        raise KeyError
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writes_are_removed(tmp_path):
    kept = [tmp_path / name for name in ('.table.md', '.cache.12345678', '.other.md.abcdefgh', 'table.md.abcdefgh')]
    for path in kept:
        path.mkdir()
    (kept[2] / 'notes.txt').touch()  # not what atomic_write writes
    (kept[1] / 'file').touch()
    for name in ('.table.md.a1b2c3_d', '.empty.pth.00000000'):
        (tmp_path / name).mkdir()
    (tmp_path / '.table.md.a1b2c3_d' / 'table.md').write_text('ha')
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)

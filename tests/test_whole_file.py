"""A file is written whole or not at all."""
from __future__ import annotations

import pytest

from dynconv_mm.whole_file import whole_file


def test_it_makes_folders_and_leaves_nothing_beside_the_file(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'table.md'
    with whole_file(path) as partial:
        assert partial.suffix == '.md'
        partial.write_text('whole')
        assert not path.exists()
    assert path.read_text() == 'whole'
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / 'table.md'
    path.write_text('old')
    with pytest.raises(KeyError), whole_file(path) as partial:
        partial.write_text('ne')
        raise KeyError
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]

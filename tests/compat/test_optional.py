"""A package that is not there, or not whole, is named together with what to install."""
import collections.abc
import sys
from importlib.metadata import metadata

import pytest

from dynconv_mm.compat.optional import MISSING_OPS, import_optional


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package ``stump`` whose import runs a line of code."""

    def make(line: str) -> str:
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / 'stump').mkdir()
        (tmp_path / 'stump' / '__init__.py').write_text(line)
        return 'stump'

    yield make
    sys.modules.pop('stump', None)


def test_installed():
    assert import_optional('collections.abc', 'X') is collections.abc


@pytest.mark.parametrize('module', ['mmabsent', 'mmabsent.models.heads'])
def test_absent_package(module):
    with pytest.raises(ImportError) as missing:
        import_optional(module, 'DynamicFPN')
    assert str(missing.value) == ('DynamicFPN is built on mmabsent, which is not installed: '
                                  '`pip install "dynconv-mm[mmabsent]"`, or `pip install onedl-mmabsent` beside the '
                                  'onedl forks')


def test_extras_of_the_message_exist():
    assert {'mmdet', 'mmpretrain'} <= set(metadata('dynconv-mm').get_all('Provides-Extra'))


def test_mmcv_without_operators(package):
    name = package("raise ModuleNotFoundError(\"No module named 'mmcv._ext'\", name='mmcv._ext')")
    with pytest.raises(ImportError) as missing:
        import_optional(name, 'DynamicFPN')
    assert str(missing.value) == MISSING_OPS.format(user='DynamicFPN is built on stump, which')
    for words in ('compiled operators of mmcv', 'pip uninstall -y mmcv mmcv-lite', 'MMCV_WITH_OPS=1 pip install'):
        assert words in str(missing.value)


@pytest.mark.parametrize(('line', 'submodule', 'absent'), [
    ('import mmabsent_dependency.part', '', 'mmabsent_dependency'),
    ('', '.heads', 'stump.heads'),
])
def test_other_module_missing(package, line, submodule, absent):
    with pytest.raises(ImportError) as missing:
        import_optional(package(line) + submodule, 'DynamicFPN')
    assert str(missing.value) == ('DynamicFPN is built on stump, which cannot be imported because the module '
                                  f'{absent!r} is missing: install it')
    assert isinstance(missing.value.__cause__, ModuleNotFoundError)


def test_other_errors_are_left_as_they_are(package):
    name = package("raise ImportError('libGL.so.1: cannot open shared object file')")
    with pytest.raises(ImportError, match='^libGL.so.1'):
        import_optional(name, 'DynamicFPN')

"""Packages of a version that does not fit are named together with the one to install."""
import sys
from types import ModuleType

import mmcv
import mmengine
import pytest
import torch

from dynconv_mm.compat import versions
from dynconv_mm.compat.versions import IncompatibleEnvironmentError, check_versions

PACKAGES = dict(torch=torch, mmengine=mmengine, mmcv=mmcv)


@pytest.fixture(autouse=True)
def without_mmdet(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmdet', raising=False)


def test_what_is_installed_fits():
    check_versions()


@pytest.mark.parametrize(('package', 'version'), [
    ('torch', '2.1.0'), ('torch', '2.1.0+cpu'), ('torch', '2.13.0a0+gitabc'), ('torch', '3.0.0'),
    ('mmengine', '0.8.3'), ('mmengine', '0.10.12'), ('mmcv', '2.0.0'), ('mmcv', '2.2.0'), ('mmcv', '2.3.6'),
])
def test_supported(monkeypatch, package, version):
    monkeypatch.setattr(PACKAGES[package], '__version__', version)
    check_versions()


@pytest.mark.parametrize(('package', 'version', 'wanted'), [
    ('torch', '1.13.1', 'torch>=2.1'), ('torch', '2.0.1+cu118', 'torch>=2.1'),
    ('mmengine', '0.8.2', 'mmengine>=0.8.3,<1.0'), ('mmengine', '1.0.0', 'mmengine>=0.8.3,<1.0'),
    ('mmcv', '1.7.2', 'mmcv>=2.0.0,<3.0'), ('mmcv', '2.0.0rc4', 'mmcv>=2.0.0,<3.0'),
    ('mmcv', '3.0.0', 'mmcv>=2.0.0,<3.0'),
])
def test_unsupported(monkeypatch, package, version, wanted):
    monkeypatch.setattr(PACKAGES[package], '__version__', version)
    with pytest.raises(IncompatibleEnvironmentError) as refused:
        check_versions()
    message = str(refused.value)
    assert message.startswith(f'dynconv_mm needs {wanted}, but {package} {version} is installed: '
                              f'`pip install "{wanted}"`')
    assert ('mmcv 1 belongs to mmdet 2 and mmcls' in message) == (package == 'mmcv')


@pytest.mark.parametrize('mmdet', [False, True])
@pytest.mark.parametrize('operators', [False, True])
def test_operators_of_mmcv(monkeypatch, mmdet, operators):
    monkeypatch.setattr(versions, 'find_spec', lambda name: operators or None)
    if mmdet:
        monkeypatch.setitem(sys.modules, 'mmdet', ModuleType('mmdet'))
    if operators or not mmdet:
        check_versions()
    else:
        with pytest.raises(IncompatibleEnvironmentError, match='^mmdet needs the compiled operators of mmcv'):
            check_versions()


def test_is_no_import_error():
    """mmengine hides the message of an ImportError that is raised in custom_imports."""
    assert not issubclass(IncompatibleEnvironmentError, ImportError)

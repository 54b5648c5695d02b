"""The kernels are on where Numba is installed, and asking for them where it is missing says what to do."""
from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from dynconv_mm.functional.backends import numba as switch

VARIABLE = 'DYNCONV_MM_NUMBA'


@pytest.fixture(autouse=True)
def at_the_start(monkeypatch):
    """The switch as it is at the start of a process."""
    names = dict(vars(switch))
    monkeypatch.delenv(VARIABLE, raising=False)
    importlib.reload(switch)
    yield
    vars(switch).update(names)  # the class that all others have imported


def test_on_where_numba_is_installed(monkeypatch):
    assert switch.is_enabled('numba')
    monkeypatch.setitem(sys.modules, 'numba', None)
    importlib.reload(switch)
    assert not switch.is_enabled('numba')


def test_as_a_context_manager():
    with switch.enable_numba(False):
        assert not switch.is_enabled('numba')
        with switch.enable_numba():
            assert switch.is_enabled('numba')
        assert not switch.is_enabled('numba')
    assert switch.is_enabled('numba')


@pytest.mark.parametrize(('value', 'enabled'), [('1', True), ('0', False), ('', True)])
def test_by_the_environment(monkeypatch, value, enabled):
    monkeypatch.setenv(VARIABLE, value)
    importlib.reload(switch)
    assert switch.is_enabled('numba') is enabled


def test_a_bad_value_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'yes')
    with pytest.raises(ValueError, match=f"{VARIABLE} must be 0 or 1, but is 'yes'"):
        importlib.reload(switch)


def test_where_numba_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'numba', None)
    with pytest.raises(ImportError, match='Numba cannot be imported: .*`pip install --upgrade numba`'):
        switch.enable_numba()
    switch.enable_numba(False)  # needs none
    monkeypatch.setenv(VARIABLE, '1')
    with pytest.raises(ImportError, match=f'{VARIABLE}=0'):
        importlib.reload(switch)


def test_imported_only_when_needed():
    """It takes half a second."""
    code = '''
import sys, torch
from dynconv_mm.layers import ODConv2d
layer = ODConv2d(4, 4, 1)
layer(torch.randn(2, 4, 3, 3)).sum().backward()
assert 'numba' not in sys.modules
with torch.no_grad():
    layer.eval()(torch.randn(1, 4, 3, 3))
assert 'numba' in sys.modules
'''
    subprocess.run([sys.executable, '-c', code], check=True)

"""The kernels are off unless asked for, and asking where Triton is missing says what to install."""
from __future__ import annotations

import importlib
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from dynconv_mm.functional.backends import triton as switch


@pytest.fixture(autouse=True)
def triton(monkeypatch):
    """A Triton that is new enough, and the switch as it is at the start of a process."""
    names = dict(vars(switch))
    monkeypatch.delenv('DYNCONV_MM_TRITON', raising=False)
    monkeypatch.setitem(sys.modules, 'triton', SimpleNamespace(__version__='3.7.1'))
    importlib.reload(switch)
    yield
    vars(switch).update(names)  # the class that all others have imported


def test_off_by_default():
    assert not switch.is_enabled('triton')


def test_as_a_function():
    switch.enable_triton()
    assert switch.is_enabled('triton')
    switch.enable_triton(False)
    assert not switch.is_enabled('triton')


def test_as_a_context_manager():
    with switch.enable_triton():
        assert switch.is_enabled('triton')
        with switch.enable_triton(False):
            assert not switch.is_enabled('triton')
        assert switch.is_enabled('triton')
    assert not switch.is_enabled('triton')
    with pytest.raises(KeyError), switch.enable_triton():
        raise KeyError
    assert not switch.is_enabled('triton')


@pytest.mark.parametrize(('value', 'enabled'), [('1', True), ('0', False), ('', False)])
def test_by_the_environment(monkeypatch, value, enabled):
    monkeypatch.setenv('DYNCONV_MM_TRITON', value)
    importlib.reload(switch)
    assert switch.is_enabled('triton') is enabled


def test_a_bad_value_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv('DYNCONV_MM_TRITON', 'yes')
    with pytest.raises(ValueError, match="DYNCONV_MM_TRITON must be 0 or 1, but is 'yes'"):
        importlib.reload(switch)


def test_a_gpu_on_which_nothing_was_checked_is_named_once(monkeypatch):
    x = SimpleNamespace(is_cuda=True, device='cuda:0', dtype=torch.float32)
    monkeypatch.setattr(switch, 'has_passed', lambda *arguments: False)
    monkeypatch.setattr(switch, 'read', lambda device: None)
    monkeypatch.setattr(switch, 'device_name', lambda device: 'Some GPU')
    with switch.enable_triton(False), warnings.catch_warnings():
        warnings.simplefilter('error')
        assert switch._refuses('mixture_conv', x) is not None
    with pytest.warns(UserWarning, match='without their Triton kernels on Some GPU.* --calibrate'):
        assert switch._refuses('mixture_conv', x) is not None
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert switch._refuses('mixture_conv', x) is not None


def test_nothing_is_said_where_there_is_no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, 'triton', None)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        switch._warn_once('Some GPU')


@pytest.mark.parametrize(('module', 'words'), [
    (None, "'triton' is not installed: `pip install"),
    (SimpleNamespace(__version__='2.1.0'), 'Triton 2.1.0 is too old for them: `pip install'),
    (SimpleNamespace(__version__='3.5.1'), 'Triton 3.5.1 is too old for them: `pip install'),
], ids=['missing', '2.1', '3.5'])
def test_where_triton_is_missing(monkeypatch, module, words):
    monkeypatch.setitem(sys.modules, 'triton', module)
    with pytest.raises(ImportError, match=words):
        switch.enable_triton()
    assert not switch.is_enabled('triton')
    switch.enable_triton(False)  # needs none
    monkeypatch.setenv('DYNCONV_MM_TRITON', '1')
    with pytest.raises(ImportError, match=words):
        importlib.reload(switch)

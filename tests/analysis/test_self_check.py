"""The self-check finds what a backend does wrong, and keeps what it found."""
from __future__ import annotations

import json

import pytest
import torch

from dynconv_mm.analysis import calibration, self_check
from dynconv_mm.functional import device_record
from dynconv_mm.functional.involution import INVOLUTION
from dynconv_mm.functional.mixture_conv import MIXTURE_CONV, PLANS, reference
from dynconv_mm.functional.operator import Backend

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Few cases, and a cache of the test's own."""
    monkeypatch.setattr(self_check, 'MIXTURES', ((3, 1, 6, 7, 1, 1, (4, 3)), (2, 3, 1, 1, 3, 2, (4, 5)),
                                                (1, 1, 20, 18, 3, 1, (2, 3))))
    monkeypatch.setattr(self_check, 'INVOLUTIONS', ((2, 3, 3, 2, (5, 4)), ))
    monkeypatch.setattr(self_check, 'BATCH', 2)
    monkeypatch.setattr(calibration, 'LAYERS', ((4, 6, 1, 5, 1, 1), (4, 4, 3, 5, 1, 4)))
    monkeypatch.setattr(calibration, 'BATCHES', (2, ))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    device_record.read.cache_clear()
    yield
    device_record.read.cache_clear()


def replace(monkeypatch, name: str, forward) -> None:
    """Beside a backend that is right; the others take the interpreter a minute."""
    monkeypatch.setattr(MIXTURE_CONV, 'backends', {name: Backend(forward), 'grouped': PLANS['grouped']})
    monkeypatch.setattr(INVOLUTION, 'backends', {'products': INVOLUTION.backends['products']})
    monkeypatch.setattr(calibration, 'PLANS', MIXTURE_CONV.backends)


@pytest.mark.slow
def test_all_backends_pass():
    checks = self_check.check(CPU)
    assert {found.backend for found in checks} >= {
        'mixture_conv.fold', 'mixture_conv.grouped', 'mixture_conv.shifted', 'involution.products'}
    has_half = not torch.__version__.startswith('2.1.')  # convolutions on CPUs
    assert {found.dtype for found in checks} == {'float32', 'bfloat16', *(['float16'] if has_half else [])}
    assert [found for found in checks if found.problem] == []
    if torch.cuda.is_available():
        return
    try:
        from dynconv_mm.functional.backends.triton.common import INTERPRETED
    except ImportError:
        return
    assert ('mixture_conv.triton' in {found.backend for found in checks}) == INTERPRETED


@pytest.mark.parametrize(('forward', 'words'), [
    (lambda m: 1.2 * reference(m), 'output is off by 0.2'),
    (lambda m: reference(m) * float('nan'), 'output is off by nan'),
    (lambda m: reference(m._replace(filter_attention=m.filter_attention.detach())), 'raises RuntimeError'),
    (lambda m: reference(m) + m.channel_attention.sum() - m.channel_attention.detach().sum(),
     'gradient of channel_attention is off'),
])
def test_what_is_wrong_is_found(monkeypatch, forward, words):
    replace(monkeypatch, 'fold', forward)
    found = {check.backend: check.problem for check in self_check.check(CPU) if check.dtype == 'float32'}
    assert words in found['mixture_conv.fold'] and found['mixture_conv.grouped'] is None


def test_the_command_keeps_what_it_found(load_tool, monkeypatch, capsys):
    replace(monkeypatch, 'fold', PLANS['fold'].forward)
    load_tool('benchmark').main(['--calibrate', '--rounds', '1'])
    record = device_record.read(CPU)
    assert 'mixture_conv.fold' in record.passed['float32'] and not any(record.failed.values())
    assert {'fold', 'grouped'} <= record.milliseconds['float32']['depthwise training'].keys()
    printed = capsys.readouterr().out
    assert str(device_record.path(CPU)) in printed and 'float32, pointwise inference: ' in printed


def test_the_command_says_what_failed(load_tool, monkeypatch, capsys):
    replace(monkeypatch, 'fold', lambda m: 1.2 * reference(m))
    with pytest.raises(SystemExit) as error:
        load_tool('benchmark').main(['--calibrate', '--rounds', '1'])
    assert error.value.code == 1
    printed = capsys.readouterr().out
    assert 'FAILED: mixture_conv.fold in float32 output is off' in printed and 'never chosen' in printed
    record = json.loads(device_record.path(CPU).read_text())
    assert 'off' in record['failed']['float32']['mixture_conv.fold']
    assert 'fold' not in record['milliseconds']['float32']['pointwise inference']
    assert MIXTURE_CONV.choose(next(self_check._mixtures(CPU, torch.float32)), 'auto', True) is PLANS['grouped']

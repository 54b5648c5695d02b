"""What was found about a device is kept, and decides which backends 'auto' takes there."""
from __future__ import annotations

import pytest
import torch

from dynconv_mm.analysis.self_check import write_record
from dynconv_mm.functional import device_record, enable_numba, enable_triton
from dynconv_mm.functional.cost_model import QUANTITIES, Shape, cheapest, estimate
from dynconv_mm.functional.device_record import Record
from dynconv_mm.functional.mixture_conv import MIXTURE_CONV, PLANS, Mixture

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A user's cache that is empty, and no choices of calls before."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(MIXTURE_CONV, '_choices', {})
    device_record.read.cache_clear()
    enable_triton.set_from_environment(enabled=False)  # as if nothing had been asked for
    yield tmp_path
    device_record.read.cache_clear()


def record(passed=(), failed=(), **milliseconds: float) -> Record:
    """Each plan takes so many milliseconds, whatever it computes."""
    costs = {plan: [time, *[0.] * (len(QUANTITIES) - 1)] for plan, time in milliseconds.items()}
    kinds = [f'{kind} {mode}' for kind in ('pointwise', 'dense', 'depthwise', 'grouped')
             for mode in ('inference', 'training')]
    return Record(dict(float32=list(passed)), dict(float32=dict.fromkeys(failed, 'is off')),
                  dict(float32=dict.fromkeys(kinds, costs)))


def mixture(batch: int = 2) -> Mixture:
    return Mixture(torch.ones(batch, 5, 6, 7), torch.ones(3, 4, 5, 1, 1), None, torch.ones(batch, 3), None, None, None,
                   (1, 1), (0, 0), (1, 1), 1, True)


def test_a_record_is_kept(cache):
    assert device_record.read(CPU) is None
    written = record(['mixture_conv.fold'], ['mixture_conv.bmm'], fold=1.)
    file = write_record(CPU, written)
    assert file.parent == cache / 'dynconv_mm' == device_record.folder()
    assert torch.__version__.split('+')[0] in file.name
    assert device_record.read(CPU) == written
    assert device_record.has_passed(CPU, torch.float32, 'mixture_conv.fold')
    assert not device_record.has_passed(CPU, torch.float16, 'mixture_conv.fold')
    assert not device_record.has_passed(CPU, torch.float32, 'mixture_conv.bmm')


def test_a_relative_folder_is_none(monkeypatch, cache):
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    monkeypatch.setenv('HOME', str(cache))
    assert device_record.folder() == cache / '.cache' / 'dynconv_mm'


@pytest.mark.parametrize('content', ['', '[1]', '{"passed": {}}'])
def test_a_broken_file_is_left_out_of_account(content):
    file = write_record(CPU, record(fold=1.))
    file.write_text(content)
    with pytest.warns(UserWarning, match='is no valid record of this device'):
        assert device_record.read(CPU) is None


def test_costs_are_those_of_the_device():
    shape = Shape(2, 3, 5, 4, 1, (1, 1), (6, 7), (6, 7), False)
    assert {'fold', 'bmm'} <= estimate(shape).keys()
    write_record(CPU, record(bmm=3., fold=2.))
    assert estimate(shape) == dict(bmm=3., fold=2.)
    assert cheapest(mixture(), False) == ['fold', 'bmm']
    assert MIXTURE_CONV.choose(mixture(), 'auto', False) is PLANS['fold']


def test_what_failed_is_not_chosen():
    write_record(CPU, record(['mixture_conv.bmm'], ['mixture_conv.fold'], bmm=3., fold=2.))
    assert cheapest(mixture(), False) == ['bmm']
    assert MIXTURE_CONV.choose(mixture(), 'auto', False) is PLANS['bmm']
    assert MIXTURE_CONV.choose(mixture(), 'fold', False) is PLANS['fold']


def test_triton_is_on_where_it_passed():
    pytest.importorskip('triton', '3.6')
    from dynconv_mm.functional.backends.triton.common import INTERPRETED
    if not INTERPRETED:
        pytest.skip('the kernels do not take CPU tensors')
    write_record(CPU, record(['mixture_conv.triton', 'mixture_conv.bmm'], triton=1., bmm=2.))
    with enable_numba(False):
        assert MIXTURE_CONV.choose(mixture(), 'auto', False) is PLANS['triton']
        with enable_triton(False):
            assert MIXTURE_CONV.choose(mixture(), 'auto', False) is PLANS['bmm']
        half = mixture()._replace(input=torch.ones(2, 5, 6, 7).half())
        assert 'calibrate' in PLANS['triton'].refuses(half)


def test_costs_of_gpus_that_nobody_measured():
    shape = Shape(128, 4, 64, 64, 1, (3, 3), (56, 56), (56, 56), True)
    gpu = torch.device('meta')  # whose record nobody can have
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert {'fold', 'grouped'} <= estimate(shape, gpu, dtype).keys()

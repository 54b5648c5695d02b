"""The measurement of execution plans, on few and small layers, and the fit of their costs."""
from __future__ import annotations

import json

import pytest

from dynconv_mm.analysis import calibration, self_check
from dynconv_mm.functional import device_record
from dynconv_mm.functional.cost_model import QUANTITIES, Shape

pytest.importorskip('scipy')


def test_the_fit_finds_the_times():
    truth = dict(fold=[.1, .2, 0, .3, 0, 0, 0, 0], grouped=[.3, .1, 0, .9, .2, .1, 0, .1])
    shapes = [Shape(batch, n, c, 2 * c, 1, (1, 1), (size, size), (size, size), False)
              for batch in (1, 2, 8) for n in (1, 4) for c in (16, 64, 256) for size in (7, 14, 56)]
    times = [(shape, {plan: sum(a * b for a, b in zip(own, shape.quantities())) for plan, own in truth.items()})
             for shape in shapes]
    fitted = calibration.fit(times)
    assert fitted.keys() == {'pointwise inference'} and fitted['pointwise inference'].keys() == truth.keys()
    for shape, expected in times:  # not the coefficients: some quantities are multiples of others
        for plan, own in fitted['pointwise inference'].items():
            estimated = sum(a * b for a, b in zip(own, shape.quantities()))
            assert estimated == pytest.approx(expected[plan], rel=.02)


def test_regret():
    shape = Shape(1, 1, 2, 2, 1, (1, 1), (3, 3), (3, 3), False)
    assert calibration.regret([(shape, dict(fold=2., grouped=3.))], {shape: 'grouped'}) == 1.5


def test_calibration(load_tool, monkeypatch, tmp_path):
    monkeypatch.setattr(calibration, 'LAYERS', ((4, 6, 1, 5, 1, 1), (4, 6, 3, 5, 2, 1), (4, 4, 3, 5, 1, 4)))
    monkeypatch.setattr(calibration, 'THIN_LAYERS', ((2, 3, 3, 4, 1, 1), ))
    monkeypatch.setattr(self_check, 'MIXTURES', self_check.MIXTURES[::5])
    monkeypatch.setattr(self_check, 'INVOLUTIONS', self_check.INVOLUTIONS[1:])
    monkeypatch.setattr(self_check, '_is_installed', lambda backend: backend != 'triton')  # slow in its interpreter
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    device_record.read.cache_clear()
    load_tool('benchmark').main(['--calibrate', str(tmp_path / 'costs.json'), '--rounds', '1'])
    device_record.read.cache_clear()
    assert [file.name for file in tmp_path.iterdir()] == ['costs.json']
    costs = json.loads((tmp_path / 'costs.json').read_text())
    assert costs['quantities'] == list(QUANTITIES)
    assert costs['milliseconds'].keys() == {f'{kind} {mode}' for kind in ('pointwise', 'dense', 'depthwise')
                                            for mode in ('inference', 'training')}
    assert 'shifted' in costs['milliseconds']['depthwise training']

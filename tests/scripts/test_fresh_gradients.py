"""Gradients of fresh networks: those of attentions explode as their temperature falls, and the page says so."""
from __future__ import annotations

import itertools
import re

import pytest
import torch

pytest.importorskip('mmpretrain')


@pytest.fixture
def tool(load_script):
    return load_script('fresh_gradients')


@pytest.fixture
def glyphs(load_script):
    images = torch.randint(0, 256, (20, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return load_script('glyph_task').Glyphs(images, tuple(map(str, range(20))), tuple('abcd'))


def test_norm_is_that_of_the_backbone(tool, glyphs, load_script):
    """By hand, of the static network and with the same batch."""
    methods = load_script('compare_methods')
    from mmengine.runner import set_random_seed
    set_random_seed(2)
    model = methods.build('ResNet-18', methods.COMPARED['ResNet-18']['static'], 4).train()
    batch = next(iter(load_script('glyph_task').batches(glyphs, 1, tool.BATCH, 2)))
    assert len(batch['inputs']) == tool.BATCH
    loss = model.loss(batch['inputs'], batch['data_samples'])['loss']
    gradients = torch.autograd.grad(loss, list(model.backbone.parameters()))
    expected = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    found = tool.gradient_norm('ResNet-18', methods.COMPARED['ResNet-18']['static'], glyphs, 2, 'end', False)
    assert found == pytest.approx(expected, rel=1e-4)


def test_attentions(tool, glyphs, monkeypatch):
    monkeypatch.setattr(tool, 'SEEDS', (0, ))

    def relative(method, *when):
        return tool.relative(method, glyphs, 'ResNet-18', {}, *when)

    assert relative('static', 'end', False) == pytest.approx(1) and relative('static', 'end', True) is None
    assert relative('DCD', 'start', False) is None and relative('FDConv', 'start', False) is None
    start, end, neutral = (relative('ODConv (4×)', *when) for when in tool.WHEN.values())
    assert max(start, neutral) < 2 and end > 10 * start
    wide = tool.relative('ODConv (4×)', glyphs, 'ResNet-18', dict(base_channels=8, stem_channels=8), 'end', False)
    assert wide not in (end, pytest.approx(1))


@pytest.mark.parametrize(('value', 'text'), [
    (None, '–'), (.94, '0.9'), (1.04, '1.0'), (9.96, '10'), (14.87, '15'), (129.8, '130'), (1711., '1,700'),
    (999_999., '10^6'), (9.4e8, '10^8'), (0., '0'), (float('nan'), 'not finite'), (float('inf'), 'not finite')])
def test_digits(tool, value, text):
    assert tool.in_digits(value) == text


@pytest.fixture
def table(tool):
    """The numbers of the page, by method."""
    page = tool.PAGE.read_text(encoding='utf-8')
    part = re.search(r'fresh_gradients\.py: gradients -->\n(.*?)<!-- end', page, re.DOTALL)[1]
    rows = [re.split(r' *\| *', line.strip('| ')) for line in part.strip().splitlines()[2:]]
    return {name: [None if cell == '–' else float(cell.replace(',', '').replace('10^', '1e')) for cell in cells]
            for name, *cells in rows}


def test_what_the_page_says(tool, table, load_script):
    """All methods are there, calm where annealing begins; where it ends, those are most behind whose gradients are
    largest, but for FDConv."""
    methods, page = load_script('compare_methods'), load_script('comparison_page')
    norms = {name for name, network in methods.NORMS['ResNet-18'].items() if not network.neutral}
    assert set(table) == {*methods.COMPARED['MobileNetV2'], *norms} - {'static'}
    assert all(value is None or value < 1.5 for row in table.values() for value in (row[0], row[3]))
    results = methods.read_results(methods.RESULTS)
    compared = [name for name in methods.COMPARED['MobileNetV2'] if name not in ('static', 'FDConv')]
    for family, column in (('ResNet-18', 1), ('MobileNetV2', 4)):
        base = page.row_of(results, family, 'static')
        by_gradient = sorted(compared, key=lambda name, column=column: table[name][column])
        behind = {name: -page.row_of(results, family, name).against(base).mean for name in compared}
        calm, wild = by_gradient[:2], by_gradient[2:]
        assert max(behind[name] for name in calm) < min(behind[name] for name in wild) or family == 'MobileNetV2'
        assert behind[by_gradient[-1]] == pytest.approx(max(behind.values()), abs=1)
    for number, column in itertools.product(('1×', '4×'), (1, 4)):
        assert table[f'ODConv ({number}), layer norm'][column] < table[f'ODConv ({number})'][column] / 10

"""The page's tables are those of the results, and their intervals those of draws."""
from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest


@pytest.fixture
def tool(load_script):
    return load_script('comparison_page')


@pytest.fixture
def methods(load_script):
    return load_script('compare_methods')


def results_of(methods, seeds=(0, 1), families=6):
    """Of static ResNet-18 at all rates, 0.2 being the best, and of two methods, one with another seed too."""
    rng, runs = np.random.default_rng(0), {}

    def add(method, rate, seed, level, family='ResNet-18'):
        runs[methods.Run(family, method, rate, seed).name] = dict(
            correct=(level + rng.integers(0, 3, families)).tolist(), params=180_000, madds=5_000_000, train_ms=.5,
            test_ms=.125, seconds=90., load=1.5)

    for rate in methods.RATES:
        add('static', rate, 0, 50 if rate == .2 else 40)
    for seed in seeds:
        add('static', .2, seed, 50)
        add('SE', .2, seed, 52)
    add('SE', .1, 0, 48)
    add('DCD', .2, 7, 51)  # with a seed that static has not
    add('ODConv (1×), spatial alone', .2, 0, 51)
    add('static', .2, 0, 55, methods.LONG)
    add('DCD', .2, 0, 57, methods.LONG)
    runs[methods.Run(methods.LONG, 'DCD', .2, 0).name]['loss'] = .523
    add('static ResNet18', .2, 0, 20, methods.WARM)
    add('DCD', .2, 0, 21, methods.WARM)
    return dict(task=dict(classes=62), runs=runs)


def test_page_is_that_of_the_results(tool, methods):
    results = methods.read_results(methods.RESULTS)
    page = tool.PAGE.read_text(encoding='utf-8')
    assert tool.page_with(page, 'comparison_page', tool.parts(results)) == page
    assert methods.RESULTS.read_text(encoding='utf-8').count('\n  "') == len(results['runs'])  # a line each
    for name in tool.FIGURES:
        assert (f'images/{name}.png' in page) == (tool.PAGE.parent / 'images' / f'{name}.png').exists()


def test_results_are_of_the_runs_that_are_planned(methods):
    results = methods.read_results(methods.RESULTS)
    assert set(results['runs']) <= {run.name for run in methods.planned(results['runs'])}
    schedule = methods.Schedule()
    assert {key: results['task'][key] for key in schedule._fields} == schedule._asdict()
    glyphs = json.loads((methods.RESULTS.parent / 'glyph_fonts.json').read_text(encoding='utf-8'))
    assert results['task']['families'] == sum(font['split'] == 'val' for font in glyphs.values())
    assert {len(values['correct']) for values in results['runs'].values()} == {results['task']['families']}


def test_interval_of_one_seed(tool):
    """Of the means of draws of families, whose spread is that of a mean."""
    counts = np.random.default_rng(3).integers(30, 62, (1, 157))
    value = tool.estimate(counts, 62)
    percents = 100 * counts[0] / 62
    half = 1.96 * percents.std() / np.sqrt(len(percents))
    assert value.mean == pytest.approx(percents.mean())
    assert value.low == pytest.approx(percents.mean() - half, abs=.3 * half / 2)
    assert value.high == pytest.approx(percents.mean() + half, abs=.3 * half / 2)


def test_interval_of_seeds_alone(tool):
    """Families alike: of two seeds a draw takes both, or one of them twice; each of these is in a quarter or more."""
    value = tool.estimate(np.array([[10] * 5, [20] * 5]), 100)
    assert value == pytest.approx((15, 10, 20))
    assert tool.estimate(np.full((3, 4), 7), 14) == pytest.approx((50, 50, 50))


def test_both_are_drawn(tool):
    rng = np.random.default_rng(0)
    seeds, families = rng.normal(50, 3, (4, 1)), rng.normal(0, 3, (1, 9))
    together, by_seed, by_family = (tool.estimate(counts, 100) for counts in (
        seeds + families, seeds + 0 * families, seeds.mean() + families))
    spread, *others = (value.high - value.low for value in (together, by_seed, by_family))
    assert spread == pytest.approx(np.hypot(*others), rel=.1)


def test_paired(tool, methods):
    """Only seeds that both have count, in their pairs."""
    results = results_of(methods)
    static, se, dcd = (tool.row_of(results, 'ResNet-18', method) for method in ('static', 'SE', 'DCD'))
    gain = se.against(static)
    assert gain.mean == pytest.approx(se.accuracy().mean - static.accuracy().mean)
    assert gain.low < gain.mean < gain.high and dcd.against(static) is None
    alike = tool.Row({seed: dict(correct=[count + 3 for count in values['correct']])
                      for seed, values in static.runs.items()}, 62)
    assert alike.against(static) == pytest.approx((300 / 62, ) * 3)


def test_tables(tool, methods):
    results = results_of(methods)
    parts = tool.parts(results)
    rates = parts['rates'].splitlines()
    assert rates[2].count('**') == 2 and rates[3] == '| static ResNet-26' + ' | –' * 6 + ' |'
    lines = parts['ResNet-18'].splitlines()
    assert [line.split(' | ')[0] for line in lines[2:]] == [f'| {name}' for name in methods.COMPARED['ResNet-18']]
    cells = lines[3].split(' | ')
    assert cells[0] == '| SE' and cells[1:4] == ['180', '5.00', '2'] and cells[6].endswith(' (1)') and cells[7] == '–'
    assert cells[5].startswith('+') and cells[8:] == ['–', '0.50', '0.12 |']
    assert lines[2].split(' | ')[5] == '–' and lines[4] == '| ODConv (1×)' + ' | –' * 10 + ' |'
    assert re.search(r'\| DCD \| – \| 1 \| 9\d\.\d\d \[.*\] \| \+.*\] \| 0\.52 \|', parts['longer'])
    assert '| DCD | 1 |' in parts['starts'] and '| ODConv (1×) | – | – | – |' in parts['starts']
    assert '| attentions (Table 7) | ODConv (1×), spatial alone | 180 | 5.00 | 1 |' in parts['ablations']
    progress = parts['progress'].splitlines()
    assert progress[2].startswith('| learning rate of ResNet-18 | 6 of 6 | 9 min | – |')
    assert progress[-1].startswith('| **all** | 15 of ')
    assert 'images/comparison_resnet.png' in parts['comparison_resnet'] and parts['comparison_mobilenet'] == ''
    assert parts['load'] == 'The load of the machine after each run with seed 0 was 1.5, 1.5 to 1.5 in four of five.\n'


def test_times_are_of_the_first_seed(tool):
    """Others may have run elsewhere."""
    runs = {0: dict(train_ms=.5), 1: dict(train_ms=9.)}
    assert [tool.Row(kept, 62).milliseconds('train_ms') for kept in (runs, {1: runs[1]})] == ['0.50', '–']


def test_machines(tool):
    runs = {'a': dict(machine='one'), 'b': {}, 'c': dict(machine='one')}
    assert tool.render_machines(dict(runs=runs)) == '- one: 2 runs\n- not recorded: 1 runs\n'


def test_a_loss_that_was_not_finite(tool, methods):
    runs = {0: dict(correct=[1], loss=None), 1: dict(correct=[1], loss=.5)}
    assert [tool.Row(kept, 62).loss() for kept in (runs, {1: runs[1]}, {})] == ['not finite', '0.50', '–']
    assert 'NaN' not in methods.RESULTS.read_text(encoding='utf-8')


def test_summary(tool, methods):
    """A line for each family that there are pairs of; a method is level where the interval has 0 in it."""
    results = results_of(methods)
    for name, values in results['runs'].items():
        if 'SE, lr 0.2' in name:
            values['correct'] = [count + 9 for count in results['runs'][name.replace('SE', 'static')]['correct']]
    static = results['runs']['ResNet-18, static, lr 0.2, seed 1']['correct']
    for method, changes in {'DyConv (4×)': [-9, -9, -8, -9, -9, -9], 'CondConv (8×)': [9, -9, 9, -9, 9, -9]}.items():
        run = methods.Run('ResNet-18', method, .2, 1)
        results['runs'][run.name] = dict(correct=[sum(pair) for pair in zip(static, changes)], params=1, madds=1)
    lines = tool.render_summary(results).splitlines()
    assert lines[0] == '- **ResNet-18** (1 to 2 seeds): ahead: SE (+14.5); level: CondConv (8×) (+0.0); ' \
                       'behind: DyConv (4×) (-14.2).'
    assert lines[1].startswith('- **ResNet-18, 4 × as long** (1 seed): ') and len(lines) == 3
    assert re.match(r'- \*\*ResNet-18 from a \[warm start\].*\*\* \(1 seed\): .*DCD \(\+', lines[2])
    assert 'static' not in lines[2]


def test_gaps_and_neutral_attentions(tool, methods):
    results = dict(task=dict(classes=62), runs={})

    def add(method, rate, *correct):
        results['runs'][methods.Run('ResNet-18', method, rate, 0).name] = dict(correct=list(correct))

    for rate, count in ((.1, 31), (.2, 62), (.4, 0)):
        add('static', rate, 31, 32 if rate == .2 else 31)
        add('ODConv (1×)', rate, 31, count)
    add('ODConv (1×), always neutral', .2, 31, 0)
    gaps = tool.render_gaps(results).splitlines()
    assert '| ODConv (1×) | +0.00 | +24.19 | -25.00 | +24.19 |' in gaps and '| FDConv | – | – | – | – |' in gaps
    assert not any(line.startswith('| static') for line in gaps)
    rows = {cells[1]: cells[2:] for cells in (re.split(r' *\| *', line) for line in
                                             tool.render_neutral(results, 'ResNet-18').splitlines())}
    assert set(methods.NEUTRAL['ResNet-18']) < set(rows)
    seeds, accuracy, gain, than_own, own = rows['ODConv (1×), always neutral'][:5]
    assert (seeds, than_own[:6], own[:6]) == ('1', '-50.00', '+24.19') and accuracy[:5] == '25.00'


@pytest.fixture
def accuracy_of(tool, methods):
    """In percent, with seed 0, of a method at a part of its family's rate."""
    results = methods.read_results(methods.RESULTS)

    def find(family, method, part=1):
        return methods.accuracy(tool.row_of(results, family, method, part).runs[0], results['task']['classes'])

    return find


def test_what_the_page_says_of_neutral_attentions_and_of_layer_norms(tool, methods):
    """ODConv is within a point of the static network with either, as in the paper four and twelve points behind; DCD
    and KernelWarehouse get most of it back."""
    results = methods.read_results(methods.RESULTS)

    def behind(name):
        gain = tool.row_of(results, 'ResNet-18', name).against(tool.row_of(results, 'ResNet-18', 'static'))
        assert (gain.high < 0) == (name not in LEVEL), name
        return -gain.mean

    for number in ('1×', '4×'):
        for what in ('neutral at first', 'layer norm', 'layer norm, neutral at first'):
            assert behind(f'ODConv ({number}), {what}') < 1
    assert abs(behind('ODConv (1×), always neutral')) < .5
    assert 4 < behind('ODConv (1×)') < 4.5 and 11.5 < behind('ODConv (4×)') < 12.5
    for method in ('DCD', 'KernelWarehouse (1×)'):
        assert behind(f'{method}, neutral at first') < behind(method) / 3
    for method in ('DyConv (4×)', 'CondConv (8×)'):
        assert .5 < behind(method) < 1.5
    assert min(map(behind, ('DCD', 'KernelWarehouse (1×)', 'FDConv'))) > 4


LEVEL = ('ODConv (1×), always neutral', 'ODConv (1×), neutral at first', 'ODConv (4×), neutral at first',
         'ODConv (1×), layer norm', 'ODConv (1×), layer norm, neutral at first',
         'ODConv (4×), layer norm, neutral at first')


def test_what_the_page_says_of_mobilenet(tool, methods, accuracy_of):
    results, guessing = methods.read_results(methods.RESULTS), 100 / 62
    rows = {name: tool.row_of(results, 'MobileNetV2', name)
            for name in (*methods.COMPARED['MobileNetV2'], *methods.VARIANTS['MobileNetV2'])}
    each = {name: [methods.accuracy(values, 62) for values in row.runs.values()] for name, row in rows.items()}
    gains = {name: row.against(rows['static']) for name, row in rows.items() if name != 'static'}
    assert {name for name in methods.COMPARED['MobileNetV2'] if sum(value > 50 for value in each[name]) > 1} == {
        'static', 'FDConv', 'CondConv (8×)'} and min(each['FDConv']) > 50 and min(each['CondConv (8×)']) < 10
    level = {name for name, gain in gains.items() if gain.low <= 0 <= gain.high and abs(gain.mean) < 1.1}
    assert level == {'ODConv (1×), always neutral', *(f'ODConv ({number}), layer norm, neutral at first'
                                                      for number in ('1×', '4×')), 'ODConv (1×), neutral at first'}
    assert -2 < gains['DCD, neutral at first'].mean < -1.5 and gains['ODConv (1×), layer norm'].mean == pytest.approx(
        -13, abs=.3)
    for method in ('DyConv (4×)', 'CondConv (8×)', 'ODConv (4×)'):
        assert gains[f'{method}, neutral at first'].mean < -5
    assert max(each['KernelWarehouse (1×), neutral at first']) < guessing + 4
    assert sorted(each['ODConv (4×), layer norm'])[1] == pytest.approx(guessing, abs=.01)
    for part in (1 / 2, 1, 2):
        assert accuracy_of('MobileNetV2', 'ODConv (1×)', part) == pytest.approx(guessing, abs=.01)
    for family, limits in (('ResNet-18', (-.1, .4)), (methods.LONG, (.2, .4)), ('MobileNetV2', (.1, .4))):
        for number in ('1×', '4×'):
            row = tool.row_of(results, family, f'ODConv ({number}), layer norm, neutral at first')
            gain = row.against(tool.row_of(results, family, 'static'))
            assert limits[0] < gain.mean < limits[1] and gain.low <= 0 <= gain.high


def test_what_the_page_says_of_learning_rates(tool, methods):
    results = methods.read_results(methods.RESULTS)
    rows = [line.strip('| ').split(' | ') for line in tool.render_gaps(results).splitlines()[2:]]
    gaps = {name: [float(gap) for gap in rest[:3] if gap != '–'] for name, *rest in rows}
    rising = [name for name, found in gaps.items() if len(found) == 3 and found == sorted(found)]
    assert rising == ['SE', 'ODConv (1×)', 'DyConv (4×)', 'KernelWarehouse (1×)']


def test_what_the_page_says_of_the_length(tool, methods):
    """SE, ODConv 1×, DyConv and CondConv are level, DCD and ODConv 4× behind, the latter by a point or by ten."""
    results = methods.read_results(methods.RESULTS)
    rows = {name: tool.row_of(results, methods.LONG, name) for name in methods.COMPARED[methods.LONG]}
    gains = {name: rows[name].against(rows['static']) for name in rows if name != 'static'}
    level = {name for name, gain in gains.items() if gain.low <= 0 <= gain.high}
    assert level == {'SE', 'ODConv (1×)', 'DyConv (4×)', 'CondConv (8×)', 'ODConv (1×), neutral at first',
                     *(f'ODConv ({number}), layer norm, neutral at first' for number in ('1×', '4×'))}
    assert {name for name, gain in gains.items() if gain.high < 0} == {'ODConv (4×)', 'DCD'}
    each = sorted(methods.accuracy(rows['static'].runs[seed], 62) - methods.accuracy(values, 62)
                  for seed, values in rows['ODConv (4×)'].runs.items())
    assert .5 < each[0] < 1.5 and 9 < each[-1] < 11


def test_what_the_page_says_of_annealing_and_the_like(tool, methods):
    results = methods.read_results(methods.RESULTS)

    def row(name):
        return tool.row_of(results, 'ResNet-18', name)

    def odconv(what):
        return row(f'ODConv {what}').accuracy().mean

    for method, loss in (('ODConv (1×)', 2.4), ('DyConv (4×)', 2.9), ('ODConv (4×)', 7.9)):
        assert row(method).against(row(f'{method}, no annealing')).mean == pytest.approx(loss, abs=.06)
    alone = [odconv(f'(1×), {part} alone') for part in ('spatial', 'channel', 'filter')]
    assert min(alone) > odconv('(1×)') and odconv('(4×), kernel alone') > odconv('(4×)')
    assert odconv('(1×)') > odconv('(2×)') > odconv('(4×)') > odconv('(8×)')
    narrow = [row(f'ODConv (1×), r = 1/{part}') for part in (4, 8, 16)]
    for one, other in itertools.permutations(narrow, 2):
        assert 3 < one.against(row('ODConv (1×)')).mean < 4 and one.against(other).low < 0


def test_what_the_page_says_of_the_warm_start(tool, methods):
    results = methods.read_results(methods.RESULTS)
    rows = {name: tool.row_of(results, methods.WARM, name) for name in methods.STARTS}
    gains = {name: row.against(rows['static ResNet18']) for name, row in rows.items()}
    for name in ('DCD', 'CondConv (8×)', *(f'{method}, kernels scaled' for method in (
            'DyConv (4×)', 'ODConv (1×)', 'ODConv (4×)'))):
        assert gains[name].low <= 0 <= gains[name].high
    for name in ('DyConv (4×)', 'ODConv (1×)', 'ODConv (4×)'):
        assert gains[name].high < 0 < rows[name].against(rows['static ResNet18, from scratch']).mean
        assert -1.5 < gains[name].mean < -.5


def test_attentions_at_first(methods):
    """What the page says of ODConv's logits: their variance is a / l, in thin networks more than in whole ones."""
    torch = pytest.importorskip('torch')
    pytest.importorskip('mmpretrain')
    from dynconv_mm.layers.odconv import ODConvAttention
    from dynconv_mm.models.backbones import ODConvResNet

    def attentions(model):
        return [module for module in model.modules() if isinstance(module, ODConvAttention)]

    def variances(model, heads):
        return {attention.fc.weight.shape[0] / attention.head_channels[head] for attention in attentions(model)
                for head in heads}

    torch.manual_seed(0)
    thin = methods.build('ResNet-18', methods.COMPARED['ResNet-18']['ODConv (4×)'], 3)
    with torch.device('meta'):
        whole = ODConvResNet(depth=18, kernel_num=4)
    assert variances(thin, ('channel', 'filter')) == {1, 1 / 2, 1 / 4}
    assert variances(whole, ('channel', 'filter')) == {1 / 4, 1 / 8, 1 / 16, 1 / 32}
    assert variances(thin, ('spatial', )) == {16 / 9} and variances(thin, ('kernel', )) == {4}
    ratios = []
    for attention in attentions(thin):
        for head, length in attention.head_channels.items():
            expected = attention.fc.weight.shape[0] / length
            getattr(attention, f'{head}_fc').register_forward_hook(
                lambda module, args, logits, expected=expected: ratios.append(logits.square().mean() / expected))
    thin.train().backbone(torch.randn(32, 1, 32, 32))
    assert len(ratios) > 40 and .8 < torch.stack(ratios).mean() < 1.25


def test_all_ablations_are_shown(tool, methods):
    shown = {method for rows in tool.ABLATIONS.values() for method in rows}
    assert set(methods.CHANGED) == shown - set(methods.COMPARED['ResNet-18'])


def test_figure(tool, methods):
    results = results_of(methods)
    figure = tool.draw(results, ('ResNet-18', 'ResNet-26'))
    for axis, cost in zip(figure.axes, (.18, 5.)):
        assert [list(line.get_xdata()) for line in axis.get_lines()] == [[cost]] * 3
        segments = [found.get_segments()[0].tolist() for found in axis.collections]
        value = tool.row_of(results, 'ResNet-18', 'SE').accuracy()
        assert segments[1] == [[cost, value.low], [cost, value.high]]
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ['static', 'SE', 'DCD']


@pytest.mark.parametrize('text, message', [('{', 'is damaged'), ('{"task": {}, "runs": {}}', 'has no results yet')])
def test_nothing_to_show(tool, tmp_path, text, message):
    path, page = tmp_path / 'results.json', tool.PAGE.read_bytes()
    path.write_text(text)
    with pytest.raises(SystemExit, match=message):
        tool.main(['--results', str(path)])
    assert path.read_text() == text and tool.PAGE.read_bytes() == page

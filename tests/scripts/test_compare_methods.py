"""Runs of the comparison on a handful of random pictures: what is learned, kept, repeated and refused."""
from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmpretrain')

FAMILIES, CLASSES = {'train': 4, 'val': 5}, ('digit_0', 'digit_1', 'lower_a', 'upper_A')


@pytest.fixture
def tool(load_script):
    return load_script('compare_methods')


@pytest.fixture
def glyph_task(load_script):
    return load_script('glyph_task')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp('glyphs'), np.random.default_rng(0)
    for split, count in FAMILIES.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for family in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(
                    folder / split / name / f'{split} {family}.png')
    return folder


@pytest.fixture
def splits(glyph_task, data):
    return glyph_task.load_glyphs(data)


@pytest.fixture
def schedule(tool, monkeypatch):
    short = tool.Schedule(epochs=2, steps=2, batch=6)
    monkeypatch.setattr(tool, 'Schedule', lambda: short)
    return short


# --- pictures

def test_pictures(splits, data):
    glyphs = splits['val']
    assert (glyphs.classes, len(glyphs.families)) == (CLASSES, FAMILIES['val'])
    with Image.open(data / 'val' / 'lower_a' / 'val 3.png') as image:
        assert glyphs.images[3, 2].tolist() == np.array(image).tolist()
    assert [glyphs.every_other_class(first).classes for first in (0, 1)] == [CLASSES[::2], CLASSES[1::2]]
    assert torch.equal(glyphs.every_other_class(1).images[2, 0], glyphs.images[2, 1])


def test_digest(glyph_task, splits):
    before = glyph_task.digest(splits)
    splits['val'].images[4, 3, 31, 31] ^= 1
    assert glyph_task.digest(splits) != before


def test_batches(glyph_task, splits):
    """Each epoch draws other pictures, none twice, with their labels; the same for the same seed."""
    glyphs = splits['train']
    images = {tuple(row.flatten().tolist()): index % 4
              for index, row in enumerate(glyph_task.as_inputs(glyphs.images.flatten(0, 1), 1))}
    loader = glyph_task.batches(glyphs, 3, 5, seed=1)
    epochs = [list(loader) for _ in range(2)]
    for epoch in epochs:
        seen = [tuple(row.flatten().tolist()) for batch in epoch for row in batch['inputs']]
        labels = [label for batch in epoch for label in batch['data_samples'][0].gt_label.tolist()]
        assert len(set(seen)) == 15 and labels == [images[row] for row in seen]
    again = next(iter(glyph_task.batches(glyphs, 3, 5, seed=1)))
    other = next(iter(glyph_task.batches(glyphs, 3, 5, seed=2)))
    assert torch.equal(epochs[0][0]['inputs'], again['inputs'])
    assert not torch.equal(epochs[0][0]['inputs'], epochs[1][0]['inputs'])
    assert not torch.equal(again['inputs'], other['inputs'])
    assert glyph_task.as_inputs(glyphs.images[0], 1.5).shape == (4, 1, 48, 48)
    with pytest.raises(ValueError, match='needs 18 pictures, but there are 16: draw more families'):
        glyph_task.batches(glyphs, 3, 6, seed=0)


@pytest.mark.parametrize('harm, message', [
    ('no folder', r'no data set of glyphs, as .*nowhere/train has no folders .*glyphs\.py data/glyphs.*--data'),
    ('no picture', r'val is not complete: lower_a has not the same families as digit_0\. Remove'),
    ('damaged picture', r'val 2\.png cannot be read .*Remove'),
    ('other size', r'val has pictures of several sizes\. Remove'),
    ('other classes', r'other classes in train than in val\. Remove'),
])
def test_pictures_that_do_not_do(glyph_task, data, tmp_path, harm, message):
    import shutil
    folder = tmp_path / 'nowhere'
    if harm != 'no folder':
        shutil.copytree(data, folder)
    place = folder / 'val' / 'lower_a' / 'val 2.png'
    if harm == 'no picture':
        place.unlink()
    elif harm == 'damaged picture':
        place.write_bytes(b'\x89PNG')
    elif harm == 'other size':
        Image.new('L', (16, 16)).save(place)
    elif harm == 'other classes':
        shutil.move(folder / 'val' / 'lower_a', folder / 'val' / 'lower_b')
    with pytest.raises(ValueError, match=message):
        glyph_task.load_glyphs(folder)


# --- runs

@pytest.mark.parametrize('family, method', [
    ('ResNet-18', 'static'), ('ResNet-18', 'SE'), ('ResNet-18', 'ODConv (4×)'), ('ResNet-18', 'CondConv (8×)'),
    ('ResNet-18', 'DCD'), ('ResNet-18', 'KernelWarehouse (1×)'), ('ResNet-18', 'FDConv'), ('ResNet-26', 'RedNet'),
    ('ResNet-26', 'DCDC'), ('MobileNetV2', 'static'), ('MobileNetV2', 'DyConv (4×)'), ('MobileNetV2', 'DCD'),
])
def test_a_run(tool, splits, schedule, tmp_path, monkeypatch, family, method):
    """All of the network learns, its costs are known, and what is kept fits into JSON."""
    run = tool.Run(family, method, .05, 0)
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in
              tool.build(family, tool.network_of(run), len(CLASSES)).named_parameters()}
    models = []
    monkeypatch.setattr(tool, 'fit', lambda model, *args, fit=tool.fit: [models.append(model), fit(model, *args)][1])
    values = tool.execute(run, splits, schedule, tmp_path)
    after = dict(models[0].named_parameters())
    still = [name for name, value in after.items() if torch.equal(value, before[name]) and value.grad.any()]
    assert not still and before.keys() == after.keys()
    assert len(values['correct']) == FAMILIES['val'] and all(0 <= count <= 4 for count in values['correct'])
    assert np.isfinite(values['loss']) and values['train_ms'] > 0 < values['test_ms']
    assert values['params'] == sum(value.numel() for value in after.values()) and values['madds'] > 10**5
    assert json.loads(json.dumps(values)) == values


def test_a_run_that_diverges(tool, splits, schedule, tmp_path):
    """Its loss is kept as null: JSON has no other word for it."""
    run = tool.Run('ResNet-18', 'static', 1e30, 0)
    values, path = tool.execute(run, splits, schedule, tmp_path), tmp_path / 'results.json'
    assert values['loss'] is None
    tool.write_results(path, dict(task={}, runs={run.name: values}))
    assert '"loss": null' in path.read_text() and tool.read_results(path)['runs'][run.name] == values


def test_every_run_has_a_network(tool):
    every = tool.planned({})
    for run in every:
        assert tool.network_of(run).kind
    assert len({run.name for run in every}) == len(every)


@pytest.mark.parametrize('family, method', [('ResNet-18', 'ODConv (4×)'), ('warm start', 'DCD')])
def test_runs_are_equal_to_the_bit(tool, splits, schedule, tmp_path, family, method):
    found = []
    for attempt in range(2):
        run = tool.Run(family, method, .1, 1)
        torch.manual_seed(attempt)  # what was drawn before has no say
        work = tool.fine_tuned if family == tool.WARM else tool.trained
        model, _ = work(run, splits, schedule, tmp_path / str(attempt))
        found.append(model.state_dict())
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_training_learns(tool, splits, monkeypatch):
    """Its own pictures by heart."""
    schedule = tool.Schedule(epochs=30, steps=2, batch=8)
    model, _ = tool.trained(tool.Run('ResNet-18', 'static', .05, 0), splits, schedule, None)
    correct, _ = tool.test(model, splits['train'], 1)
    assert sum(correct) >= 15


def test_counts_are_of_each_family(tool, splits):
    glyphs = splits['val']

    class Oracle(torch.nn.Module):
        """Right but for the second family, and for class 2 of the last."""

        def forward(self, inputs):
            inputs = inputs[:, 0].flatten(1)
            from glyph_task import as_inputs
            known = as_inputs(glyphs.images.flatten(0, 1), 1)[:, 0].flatten(1)
            index = torch.cdist(inputs, known).argmin(1)
            wrong = (index // 4 == 1) | (index == 4 * 4 + 2)
            return torch.nn.functional.one_hot((index + wrong) % 4, 4).float()

    assert tool.test(Oracle(), glyphs, 1)[0] == [4, 0, 4, 4, 3]


@pytest.mark.parametrize('method, temperatures', [
    ('ODConv (1×)', [30., 1.]), ('ODConv (1×), no annealing', []), ('KernelWarehouse (1×)', [1., 0.]), ('static', [])])
def test_temperatures(tool, splits, monkeypatch, method, temperatures):
    """They fall over the first tenth of the steps, where a method has them."""
    from dynconv_mm.layers.temperature import TemperatureMixin
    seen = []
    monkeypatch.setattr(TemperatureMixin, 'set_temperature', lambda layer, value: seen.append(value))
    steps = 20
    tool.trained(tool.Run('ResNet-18', method, .1, 0), splits, tool.Schedule(10, 2, 4), None)
    expected = []
    if temperatures:
        start, end = temperatures
        expected = [end + (start - end) / 2, end]  # of steps 1 and 2 of 20
    assert list(dict.fromkeys(seen)) == pytest.approx(expected) and steps * tool.ANNEALED == 2


def is_linear(backbone, images):
    """Whether each dynamic layer convolves all pictures by the same kernel: that of a sum is then the sum."""
    calls = []
    layers = [module for module in backbone.modules() if hasattr(module, 'neutralize_attention')]
    for layer in layers:
        layer.register_forward_hook(lambda *call: calls.append(call))
        if hasattr(layer, 'trained_temperature'):
            layer.set_temperature(layer.trained_temperature)
    backbone.eval()(images)
    convs = [(layer, args, y) for layer, args, y in calls if hasattr(layer, 'kernel_size')]
    assert len(convs) > 5
    return all(torch.allclose(layer(x + x.flip(0), *rest), y + y.flip(0), rtol=1e-3, atol=1e-4 * y.abs().max())
               for layer, (x, *rest), y in convs)


@pytest.mark.parametrize('method', ['ODConv (1×)', 'ODConv (4×)', 'DyConv (4×)', 'CondConv (8×)', 'DCD',
                                    'KernelWarehouse (1×)'])
def test_neutral_start(tool, splits, monkeypatch, method):
    """With the weights of the other start, but for those by which kernels depend on the picture."""
    monkeypatch.setattr(tool, 'fit', lambda model, *args: tool.Training(0., 0.))
    (own, _), (neutral, _) = (tool.trained(tool.Run('ResNet-18', name, .1, 0), splits, tool.Schedule(), None)
                              for name in (method, f'{method}, neutral at first'))
    weights, same = own.state_dict(), [name for name, value in neutral.state_dict().items()
                                       if torch.equal(value, own.state_dict()[name])]
    assert weights.keys() == neutral.state_dict().keys() and len(weights) / 2 < len(same) < len(weights)
    images = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not is_linear(own.backbone, images) and is_linear(neutral.backbone, images)


def test_always_neutral(tool, splits, schedule, tmp_path):
    """Attentions stay as they are, and all else learns."""
    run = tool.Run('ResNet-18', 'ODConv (1×), always neutral', .1, 0)
    model, _ = tool.trained(run, splits, schedule, tmp_path)
    torch.manual_seed(0)
    fresh = dict(tool.build('ResNet-18', tool.network_of(run), len(CLASSES)).named_parameters())
    still = {name for name, value in model.named_parameters() if torch.equal(value, fresh[name])}
    heads = {name for name in fresh if '_fc.' in name}
    assert heads and still | heads == {name for name in fresh if '.attention.' in name}
    assert all(not value.any() for name, value in model.named_parameters() if name in heads)


def test_rate_and_its_fall(tool, splits, schedule, monkeypatch):
    """The first step is by the learning rate of the run, then it falls as a cosine; scaled kernels learn faster and
    decay as others."""
    steps = []

    class Recorded(torch.optim.SGD):

        def step(self, closure=None):
            steps.append({(group['lr'], group['weight_decay']) for group in self.param_groups})
            return super().step(closure)

    from mmengine.registry import OPTIMIZERS
    OPTIMIZERS.register_module('RecordedSGD', module=Recorded, force=True)
    monkeypatch.setitem(tool.SGD, 'type', 'RecordedSGD')
    run = tool.Run('ResNet-18', 'static', .2, 0)
    model = tool.build('ResNet-18', tool.network_of(run), 4)
    tool.fit(model, splits['train'], schedule, run, False, {'backbone.layer1.0.conv1.weight': 4.})
    wanted = [.2 * (1 + np.cos(np.pi * step / 4)) / 2 for step in range(4)]
    for found, rate in zip(steps, wanted):
        assert sorted(found) == [pytest.approx((rate, 1e-4)), pytest.approx((4 * rate, 1e-4 / 4))]
    assert len(steps) == 4


def test_warm_start(tool, splits, schedule, tmp_path, monkeypatch):
    """All start from one static network, which was trained on the other classes."""
    seen = {}

    def fit(model, glyphs, schedule, run, *args):
        if glyphs.classes == CLASSES[::2]:
            with torch.no_grad():
                model.backbone.conv1.weight.neg_()  # what it learned
        seen[run.method, glyphs.classes] = schedule
        return tool.Training(0., 0.)

    monkeypatch.setattr(tool, 'fit', fit)
    images = torch.randn(3, 1, 32, 32)
    maps = {}
    for method in ('static ResNet18', 'ODConv (4×), kernels scaled', 'static ResNet18, from scratch'):
        model, _ = tool.fine_tuned(tool.Run(tool.WARM, method, .1, 0), splits, schedule, tmp_path)
        maps[method] = model.eval().backbone(images)[0]
    assert [key for key in seen if key[1] == CLASSES[::2]] == [('static ResNet18', CLASSES[::2])]
    assert {classes: schedule for (_, classes), schedule in seen.items()} == {
        CLASSES[::2]: (4, 1, 6), CLASSES[1::2]: (1, 1, 6)}  # as many steps as of all classes; a quarter of them
    static, odconv, scratch = maps.values()
    torch.testing.assert_close(odconv, static, rtol=1e-4, atol=1e-5)
    assert (scratch - static).abs().max() > .1 * static.abs().max()
    assert len(list(tmp_path.iterdir())) == 1


# --- results

@pytest.mark.parametrize('text, message', [
    ('{"task": {', 'JSONDecodeError'), ('[]', 'TypeError'), ('{"runs": {}}', 'KeyError'),
    ('{"task": {}, "runs": {"a": {"correct": 3, "seconds": 1}}}', 'no results of this comparison'),
    ('{"task": {}, "runs": {"a": 1}}', 'TypeError'), ('{"task": null, "runs": {}}', 'no results of this comparison'),
])
def test_damaged_results(tool, tmp_path, capsys, text, message):
    path = tmp_path / 'results.json'
    path.write_text(text)
    for command in (['--list'], ['--only', '*'], ['--repeat', '*']):
        with pytest.raises(SystemExit) as error:
            tool.main([*command, '--results', str(path), '--data', str(tmp_path)])
        assert re.search(rf'results\.json is damaged .*{message}.*left as it is: restore it .*git checkout',
                         str(error.value))
    assert path.read_text() == text


def test_results_in_a_folder(tool, tmp_path):
    with pytest.raises(SystemExit, match='is no file: name one by --results'):
        tool.main(['--list', '--results', str(tmp_path)])


def test_results_of_another_task(tool, data, schedule, tmp_path):
    path = tmp_path / 'results.json'
    tool.write_results(path, dict(task=dict(pictures='f00', classes=4), runs={}))
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=r'of another task: pictures f00 in place of \w{16}, .*--like docs/glyph_f'):
        tool.main(['--results', str(path), '--data', str(data)])
    assert path.read_bytes() == before


def test_no_pictures(tool, tmp_path):
    with pytest.raises(SystemExit, match=r'holds no data set of glyphs.*glyphs\.py data/glyphs'):
        tool.main(['--results', str(tmp_path / 'results.json'), '--data', str(tmp_path)])


def test_unknown_run(tool, tmp_path):
    for option in ('--only', '--repeat'):
        with pytest.raises(SystemExit, match=r"no run is called 'ResNet-18, ODConf \(4×\), \*'; did you mean .*ODConv"
                                             r'.*--list shows all'):
            tool.main([option, 'ResNet-18, ODConf (4×), *', '--results', str(tmp_path / 'r.json')])


def test_queue(tool, data, schedule, tmp_path, capsys):
    """Learning rates are chosen first; what has a result is not done again; a run can be repeated."""
    path = tmp_path / 'results.json'
    command = ['--data', str(data), '--results', str(path), '--folder', str(tmp_path)]
    tool.main([*command, '--only', 'ResNet-18, SE, *seed 0'])
    results = json.loads(path.read_text())
    rate = tool.rate_of('ResNet-18', results['runs'])
    names = [run.name for run in tool.grid('ResNet-18')] + [f'ResNet-18, SE, lr {rate:g}, seed 0']
    others = [f'ResNet-18, SE, lr {part * rate:g}, seed 0' for part in tool.OTHER_RATES[::-1]]
    assert set(results['runs']) == {*names, *others}
    best = max(sum(results['runs'][name]['correct']) for name in names[:-1])
    assert sum(results['runs'][f'ResNet-18, static, lr {rate:g}, seed 0']['correct']) == best
    told = capsys.readouterr().out.splitlines()
    count = len(tool.RATES) + 3
    assert len(told) == count + 1 and re.fullmatch(
        rf'\[1, {count - 1} left\] ResNet-18, static, lr 0.0125, seed 0: [\d.]+% in \d+ s; about \d+ min of one core '
        'left', told[0])
    before = path.read_bytes()
    tool.main([*command, '--only', 'ResNet-18, SE, *seed 0'])
    assert capsys.readouterr().out == f'all {count} runs are in {path}\n' and path.read_bytes() == before
    tool.main([*command, '--repeat', names[-1]])
    assert re.search(r'ResNet-18, SE, .*% as before, in every family', capsys.readouterr().out)
    tool.main(['--list', '--results', str(path)])
    told = capsys.readouterr().out.splitlines()
    assert [line[5:] for line in told if line.startswith('done ')] == [*names, *others]
    assert re.fullmatch(rf'{count} of \d+ runs are done; the others take about .* of one core', told[-1])
    assert re.fullmatch(r'.+, torch \d.*', results['runs'][names[-1]]['machine'])
    results['runs'][names[-1]]['correct'][0] ^= 1
    results['runs'][names[-1]]['machine'] = 'another one'
    tool.write_results(path, results)
    with pytest.raises(SystemExit, match='SE.* comes out otherwise: .*% in place of .*that was another one'):
        tool.main([*command, '--repeat', names[-1]])
    assert json.loads(path.read_text()) == results
    with pytest.raises(SystemExit, match='has no run .*DCD.* to repeat'):
        tool.main([*command, '--repeat', 'ResNet-18, DCD, *'])


def test_two_processes_lose_nothing(tool, data, schedule, tmp_path, monkeypatch):
    """What another one wrote during a run is kept."""
    path = tmp_path / 'results.json'
    execute = tool.execute

    def meanwhile(run, *args):
        values = execute(run, *args)
        results = tool.read_results(path)
        if results['task'] is None:
            return values
        results['runs'][f'of another, {run.seed}'] = values
        tool.write_results(path, results)
        return values

    monkeypatch.setattr(tool, 'execute', meanwhile)
    tool.main(['--data', str(data), '--results', str(path), '--only', 'ResNet-18, static, lr 0.1, seed 0'])
    runs = json.loads(path.read_text())['runs']
    assert 'of another, 0' in runs and set(runs) > {run.name for run in tool.grid('ResNet-18')}


def test_plan(tool):
    """The most telling first; learning rates follow what was found, and all rows of a block are paired by seed."""
    def found(best):
        return {run.name: dict(correct=[9 if run.rate == best else 1], seconds=2.) for run in tool.grid('ResNet-18')}

    assert [tool.rate_of('ResNet-18', found(rate)) for rate in tool.RATES] == list(tool.RATES)
    assert tool.rate_of(tool.WARM, found(.2)) == .2
    plan = tool.plan(found(.2))
    assert list(plan)[:2] == ['learning rate of ResNet-18', 'ResNet-18']
    assert sum(map(len, plan.values())) - len(tool.planned(found(.2))) > 0  # what is in two blocks is done once
    assert [run.seed for run in plan['ResNet-18']] == sorted(run.seed for run in plan['ResNet-18'])
    assert not {run.method for run in plan['ResNet-18']} & set(tool.SLOW)
    assert {run.rate for run in plan['ResNet-18']} == {run.rate for run in plan['warm start']} == {.2}
    others = {(run.family, run.method, run.seed) for run in plan['half and double of all learning rates']}
    assert others == {(family, method, 0) for family in tool.FAMILIES for method in tool.COMPARED[family]}
    assert {run.rate for run in plan['half and double of all learning rates'] if run.family == 'ResNet-18'} == {.1, .4}
    assert {run.rate for run in plan['these for longer']} == {.2}
    every = {(run.family, run.method) for run in tool.planned(found(.2))}
    shown = [(family, method) for family in (*tool.FAMILIES, tool.LONG) for method in tool.COMPARED[family]]
    shown += [(tool.WARM, method) for method in tool.STARTS] + [
        (family, method) for family, methods in tool.VARIANTS.items() for method in methods]
    assert every == set(shown)


def test_longer(tool, splits, schedule, monkeypatch):
    seen = []
    monkeypatch.setattr(tool, 'fit', lambda model, glyphs, schedule, *args: seen.append(schedule))
    for family in ('ResNet-18', tool.LONG):
        tool.trained(tool.Run(family, 'static', .1, 0), splits, schedule, None)
    assert seen == [schedule, (4 * schedule.epochs, *schedule[1:])]


def test_time_left(tool):
    known = {'ResNet-18, static, lr 0.1, seed 0': dict(seconds=60.), 'ResNet-18, SE, lr 0.1, seed 0': dict(seconds=90.)}
    left = [tool.Run('ResNet-18', 'SE', .1, 1), tool.Run('ResNet-18', 'DCD', .1, 1)]
    assert tool.seconds_of(left, known) == 90 + 75 and tool.seconds_of(left, {}) is None
    assert tool.seconds_of([tool.Run(tool.LONG, 'static', .1, 0)], known) == 4 * 60
    assert [tool.in_words(value) for value in (None, 165., 7260.)] == ['unknown', '3 min', '2 h 01 min']

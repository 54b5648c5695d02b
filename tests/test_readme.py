"""What README.md, CONTRIBUTING.md and docs/*.md say is true: code runs, commands name what exists, tables are current.

The Python blocks of a page run one after the other, as one program, in a folder from which ``configs``, ``docs``,
``scripts`` and ``tools`` can be read. A block behind a line ``<!-- not run: WHY -->``, which readers do not see,
needs what is not there: it has to compile. Commands are not run: their options and files have to exist.
"""
from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

import dynconv_mm  # noqa: F401  registers the backbones
from dynconv_mm.conversion import write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
         for path in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md')))}
LANGUAGES = {'python', 'bash', 'text', 'bibtex', 'json', 'yaml', 'html', 'diff'}
PROGRAMS = {'export', 'make', 'mim', 'pip', 'pre-commit', 'python'}
FENCE = re.compile(r'^(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<language>.*)\n(?P<code>(?:.*\n)*?)```$', re.MULTILINE)


class Block(NamedTuple):
    """A block of code on a page."""

    page: str
    language: str
    code: str
    line: int  # of its first line
    why_not_run: str | None


def blocks_of(page: str, text: str) -> list[Block]:
    """All blocks of a page."""
    return [Block(page, match['language'], match['code'], text.count('\n', 0, match.start('code')) + 1, match['why'])
            for match in FENCE.finditer(text)]


BLOCKS = [block for page, text in PAGES.items() for block in blocks_of(page, text)]


def commands_of(code: str) -> list[str]:
    """The commands of a block for the shell, each on one line, without comments."""
    lines = [re.sub(r'(^|\s)#.*', '', line).strip() for line in code.replace('\\\n', ' ').splitlines()]
    return [command.strip() for line in lines if line for command in re.split(r'&&|\|', line)]


COMMANDS = sorted({command for block in BLOCKS if block.language == 'bash' for command in commands_of(block.code)})


CONFIGS = sum(block.page == 'README.md' and '_base_ =' in block.code for block in BLOCKS)


def test_blocks_are_found():
    text = ('a\n```python\nx = 1\ny = 2\n```\n\n<!-- not run: needs COCO -->\n```python\nz\n```\n'
            '```bash\nFOO=1 make a && mim b \\\n  c  # d\n\n```\n')
    assert blocks_of('page', text) == [Block('page', 'python', 'x = 1\ny = 2\n', 3, None),
                                       Block('page', 'python', 'z\n', 9, 'needs COCO'),
                                       Block('page', 'bash', 'FOO=1 make a && mim b \\\n  c  # d\n\n', 12, None)]
    assert commands_of(blocks_of('page', text)[-1].code) == ['FOO=1 make a', 'mim b    c']


@pytest.mark.parametrize('page', PAGES)
def test_every_block_has_a_language(page):
    """One that is known here: else nothing would look at it. Output is ```text."""
    found = [block for block in BLOCKS if block.page == page]
    assert {block.language for block in found} <= LANGUAGES
    assert PAGES[page].count('```') == 2 * len(found)


@pytest.mark.parametrize('page', sorted({block.page for block in BLOCKS if block.language == 'python'}))
def test_python(page, root, tmp_path, monkeypatch):
    for name in ('configs', 'docs', 'scripts', 'tools'):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    program = {'__name__': '__main__'}
    for block in BLOCKS:
        if block.page != page or block.language != 'python':
            continue
        code = compile('\n' * (block.line - 1) + block.code, page, 'exec')  # errors name the page's line
        if block.why_not_run is None and '_base_ =' in block.code:
            pytest.importorskip('mmdet')
            (tmp_path / 'config.py').write_text(block.code, encoding='utf-8')
            assert Config.fromfile(tmp_path / 'config.py').model
        elif block.why_not_run is None:
            exec(code, program)


def test_code_of_the_readme_fits_its_page():
    """GitHub and PyPI show some 100 characters of a line."""
    assert {line for block in BLOCKS if block.page == 'README.md' and block.language in ('python', 'bash')
            for line in block.code.splitlines() if len(line) > 100} == set()


def test_configs_of_the_readme(tmp_path):
    pytest.importorskip('mmdet')
    codes = [block.code for block in BLOCKS if block.page == 'README.md' and '_base_ =' in block.code]
    assert len(codes) >= 2
    for code in codes:
        (tmp_path / 'config.py').write_text(code, encoding='utf-8')
        config = Config.fromfile(tmp_path / 'config.py')
        assert MODELS.get(config.model.backbone.type).__module__.startswith('dynconv_mm.')
        assert config.custom_imports['imports'] == ['dynconv_mm']


@pytest.mark.parametrize('index', range(CONFIGS))
def test_what_a_config_of_the_readme_trains(index, tmp_path, monkeypatch, caplog):
    """All of it, but for what its pre-trained weights are kept of; the log does not warn."""
    pytest.importorskip('mmdet')
    from mmdet.testing import demo_mm_inputs
    code = [block.code for block in BLOCKS if block.page == 'README.md' and '_base_ =' in block.code][index]
    (tmp_path / 'config.py').write_text(code, encoding='utf-8')
    config = Config.fromfile(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    kept = set()
    for pretrained in model.backbone.initial_checkpoints():
        write_checkpoint(tmp_path / pretrained, dict(state_dict={
            f'backbone.{name}': value + 1 for name, value in model.backbone.state_dict().items()}))
        kept = {name for name, _ in model.backbone.named_modules(prefix='backbone')}
    model.init_weights()
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handlers', [caplog.handler])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    optimizer.zero_grad = lambda: None  # the gradients are looked at
    model.train()
    num_classes = config.model.roi_head.bbox_head.num_classes
    model.train_step(demo_mm_inputs(2, [(3, 64, 96), (3, 80, 64)], [4, 4], num_classes=num_classes),
                     OptimWrapper(optimizer))
    assert [record.message for record in caplog.records if record.levelname == 'WARNING'] == []
    for name, module in model.named_modules():
        if name not in kept:
            assert all(parameter.grad is not None for parameter in module.parameters(recurse=False)), name
            assert getattr(module, 'num_batches_tracked', None) in (None, 1), name
    assert model.backbone.conv1.weight.requires_grad == (not kept)


CONFIG = next(block.code for block in BLOCKS if block.page == 'README.md' and 'data_root' in block.code)


def test_the_tour_has_the_same_config():
    assert CONFIG in [block.code for block in BLOCKS if block.page == 'docs/index.md']


def test_a_config_for_ones_own_data(digits, tmp_path):
    """The README's, with the first two lines changed as it says, trains on other data: nothing is frozen."""
    pytest.importorskip('mmdet')
    names = ('zero', 'one', 'two')
    first, second, *rest = CONFIG.splitlines()
    assert first.startswith('classes = ') and second.startswith('data_root = ')
    file = tmp_path / 'my_detector.py'
    file.write_text('\n'.join([f'classes = {names}', f"data_root = '{digits}/'", *rest]), encoding='utf-8')
    config = Config.fromfile(file)
    config.merge_from_dict(dict(  # one iteration of a smaller network on small images
        work_dir=str(tmp_path), model=dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512])),
        train_dataloader=dict(num_workers=0, persistent_workers=False, dataset=dict(indices=2)),
        val_dataloader=dict(num_workers=0, persistent_workers=False), train_cfg=dict(max_epochs=1, val_interval=2)))
    for loader in (config.train_dataloader, config.val_dataloader):
        next(step for step in loader.dataset.pipeline if step['type'] == 'Resize').scale = (160, 128)
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.iter == 1
    for loader in (runner.train_dataloader, runner.val_dataloader):
        assert tuple(loader.dataset.metainfo['classes']) == names
    assert runner.model.roi_head.bbox_head.num_classes == 3
    frozen = [name for name, parameter in runner.model.named_parameters() if not parameter.requires_grad]
    norms = [module for module in runner.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not frozen and norms and all(norm.num_batches_tracked == 1 for norm in norms)


def test_figures_of_the_readme(root):
    """Accuracies are the model index's, times the ones that were measured, as ratios."""
    rows = {line.split(' | ')[0].removeprefix('| '): [float(cell.strip(' %|')) for cell in line.split(' | ')[1:]]
            for line in PAGES['README.md'].splitlines() if re.match(r'\| (ImageNet|COCO|time|that time)', line)}
    models = {entry['Name']: {name: value for result in entry.get('Results', ()) for name, value in
                              result['Metrics'].items()}
              for file in root.glob('configs/*/metafile.yml') for entry in load(file)['Models']}
    top1, ap, ours, theirs = rows.values()
    assert top1 == [models[name]['Top 1 Accuracy (ODConv paper)'] for name in (
        'resnet50_8xb32_in1k', 'odconv1x-resnet50_8xb32_in1k', 'odconv4x-resnet50_8xb32_in1k')]
    assert ap == [models[f'faster-rcnn_{name}_fpn_1x_coco']['box AP (ODConv paper)'] for name in (
        'r50', 'odconv1x-r50', 'odconv4x-r50')]
    for plan, row in (('auto', ours), ('grouped', theirs)):
        ratios = {result['network']: result['ratio'] for result in load(root / 'docs/performance.json')['results']
                  if result['plan'] == plan and not result['setting']['training'] and result['setting']['batch'] == 1}
        assert row == [1, *(round(ratios[f'odconv{n}x-resnet50'], 2) for n in (1, 4))]


def test_there_are_commands():
    assert {'make demo', 'make test'} <= set(COMMANDS)


HELP: dict[tuple[str, ...], str] = {}


@pytest.fixture
def help_of(run):
    """What ``--help`` of a program says, asked once."""

    def ask(*program: str) -> str:
        if program not in HELP:
            HELP[program] = run(*program, '--help').stdout
        return HELP[program]

    return ask


@pytest.mark.parametrize('command', COMMANDS)
def test_command(command, root, run, help_of):
    words = [word for word in shlex.split(command) if not re.fullmatch(r'[A-Z_]+=\S*', word)]
    program, *arguments = words
    assert program in PROGRAMS or (root / program).suffix == '.sh' and (root / program).exists()
    options = {argument.partition('=')[0] for argument in arguments if argument.startswith('--')}
    if program == 'make':
        done = run('make', '--dry-run', *shlex.split(command)[1:], PYTHON='true')
        assert done.returncode == 0, done.stdout
    for argument in arguments:
        if re.match(r'(configs|docs|requirements|scripts|tests|tools)/', argument) and '*' not in argument:
            assert (root / argument.partition('::')[0]).exists(), argument
    if arguments[:2] == ['run', 'dynconv_mm']:  # as mim finds it: by its name, in any folder
        tool, = root.glob(f'tools/*/{arguments[2]}.py')
        known = help_of('python', tool)
    elif program == 'mim':
        known = help_of('mim', arguments[0]) + '--cfg-options --work-dir --resume'
        if arguments[1] == 'dynconv_mm':  # whose own script gets what mim does not know
            known += help_of('python', f'tools/{arguments[0]}.py')
    elif program == 'python' and arguments[0].startswith(('scripts/', 'tools/')):
        known = help_of('python', arguments[0])
        assert 'usage: ' in known
    elif program.endswith('.sh'):
        known = help_of(program) + help_of('python', re.sub(r'\w+_(\w+)\.sh$', r'\1.py', program))
    else:
        return
    for option in options:
        assert re.search(rf'{option}(?![\w-])', known), option


@pytest.mark.parametrize('page, target', [(page, target) for page, text in PAGES.items()
                                          for target in re.findall(r'\]\(((?!http|#)[^)\s#]+)', text)])
def test_link(page, target, root):
    assert (root / page).parent.joinpath(target).exists()


@pytest.mark.parametrize('page, name', [(page, name) for page, text in PAGES.items()
                                        for name in re.findall(
                                            r'`((?:configs|scripts|tools|requirements)/[^`*<…{]+)`', text)])
def test_file(page, name, root):
    assert (root / name.split()[0]).exists()


def test_options_of_configs(root):
    """--cfg-options of the commands are settings that the config has."""
    pytest.importorskip('mmdet')
    for command in COMMANDS:
        if '--cfg-options' in command:
            words = shlex.split(command)
            config = Config.fromfile(root / next(word for word in words if word.startswith('configs/')))
            for option in words[words.index('--cfg-options') + 1:]:
                *path, last = option.partition('=')[0].split('.')
                value = config
                for key in path:
                    value = value[key]
                assert last in value, option


def test_stacks(root):
    """The versions in the table are those that are pinned."""
    for stack in ('official', 'onedl', 'classic'):
        pins = dict(line.split('==') for line in (root / f'requirements/constraints-{stack}.txt').read_text().split())
        row, = (line for line in PAGES['docs/installation.md'].splitlines() if line.startswith(f'| `{stack}`'))
        versions = re.findall(r'(mm\w+) ([\d.]+)', row) + re.findall(r'\| (\d[\d.]+) ()\|', row)
        for name, version in versions:
            if version:
                assert pins[name] == version
            else:
                assert pins['torch'] == name

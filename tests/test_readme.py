"""README and docs are true: their Python runs, their commands name files and options that exist, tables are current."""
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config

README = Path(__file__).resolve().parent.parent / 'README.md'
TEXT = README.read_text(encoding='utf-8')
PAGES = [page.read_text(encoding='utf-8') for page in sorted((README.parent / 'docs').glob('*.md'))]


def blocks(language: str) -> list[str]:
    return [block for text in (TEXT, *PAGES)
            for block in re.findall(rf'^```{language}\n(.*?)^```', text, re.DOTALL | re.MULTILINE)]


COMMANDS = [line for block in blocks('bash') for line in block.splitlines()]


@pytest.mark.parametrize('code', blocks('python'))
def test_python(code, tmp_path):
    if '_base_' not in code:
        exec(compile(code, 'README.md', 'exec'), {})
        return
    pytest.importorskip('mmdet')
    (tmp_path / 'config.py').write_text(code)
    config = Config.fromfile(tmp_path / 'config.py')
    assert config.model.backbone.type in ('ODConvResNet', 'Dynamicized')
    assert config.custom_imports['imports'] == ['dynconv_mm']


def test_there_are_commands():
    assert {'make demo', 'make test'} <= set(COMMANDS)


@pytest.mark.parametrize('command', COMMANDS)
def test_command(command, root, run):
    words = [word for word in shlex.split(command) if not re.fullmatch(r'[A-Z_]+=\S*', word)]
    program, *arguments = words
    assert program in ('make', 'mim', 'pip', 'python')
    if program == 'make':
        done = run('make', '--dry-run', *shlex.split(command)[1:], PYTHON='true')
        assert done.returncode == 0, done.stdout
    for argument in arguments:
        if re.match(r'(configs|tools|requirements)/', argument):
            assert (root / argument).exists(), argument
    if program == 'mim':
        known = run('mim', arguments[0], '--help').stdout + '--cfg-options --work-dir --resume'
        for option in (argument for argument in arguments if argument.startswith('--')):
            assert option in known, option


@pytest.mark.parametrize('target', re.findall(r'\]\(((?!http)[^)]+)\)', TEXT))
def test_link(target, root):
    assert (root / target).exists()


@pytest.mark.parametrize('name', re.findall(r'`((?:configs|tools|requirements)/[^`*<]+)`', TEXT))
def test_file(name, root):
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
        row, = (line for line in TEXT.splitlines() if line.startswith(f'| `{stack}`'))
        versions = re.findall(r'(mm\w+) ([\d.]+)', row) + re.findall(r'\| (\d[\d.]+) ()\|', row)
        for name, version in versions:
            if version:
                assert pins[name] == version
            else:
                assert pins['torch'] == name


def test_model_tables(load_tool, capsys):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    load_tool('update_model_tables').main(['--check'])

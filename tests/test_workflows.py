"""What runs the project's checks: Makefile, workflows and commit hooks agree with each other and with the pins."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from slow_files import SLOW_FILES

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))
ACTIONS = sorted((ROOT / '.github' / 'actions').glob('*/action.yml'))
MAKEFILE = (ROOT / 'Makefile').read_text(encoding='utf-8')
TARGETS = re.search(r'^\.PHONY: (.*)$', MAKEFILE, re.MULTILINE)[1].split()


def read(file: Path) -> dict:
    return yaml.safe_load(file.read_text(encoding='utf-8'))


def pins(stack: str = 'official') -> dict[str, str]:
    lines = (ROOT / 'requirements' / f'constraints-{stack}.txt').read_text(encoding='utf-8').split()
    return dict(line.split('==') for line in lines)


def steps(file: Path) -> list[dict]:
    content = read(file)
    return content['runs']['steps'] if 'runs' in content else [step for job in content['jobs'].values()
                                                               for step in job['steps']]


def test_help_lists_every_target(run):
    shown = re.findall(r'^([a-z-]+): \S', run('make', 'help').stdout, re.MULTILINE)
    assert sorted(shown) == sorted(TARGETS)


#: what a target has to run, as its plan says it; all but help and clean do so in the environment
RUNS = {
    'help': ["sed -n "],
    'install': ['true scripts/install_stack.py --stack onedl --venv .venv-onedl --development'],
    'environment': ['true scripts/install_stack.py --stack onedl --venv .venv-onedl\n'],
    'demo': ['tools/train.py configs/demo/faster-rcnn_odconv', 'tools/test.py ', 'report_detections.py'],
    'demo-panoptic': ['tools/train.py configs/demo/panoptic-fpn_dcdc', 'tools/test.py ', 'report_detections.py'],
    'test': ['ruff check .\n', ' pytest tests -m "not slow" -n auto --dist loadgroup\n'],
    'test-all': ['ruff check .\n', ' pytest tests -n auto --dist loadgroup\n'],
    'test-neighbours': ['--development --neighbours\n', ' pytest tests/neighbours -n auto --dist loadgroup\n'],
    'coverage': [' pytest tests -n auto --dist loadgroup --cov --cov-report=html '],
    'lint': ['.venv-onedl/bin/ruff check .\n', '.venv-onedl/bin/interrogate --quiet dynconv_mm '],
    'docs': ['.venv-onedl/bin/mkdocs build --strict\n'],
    'clean': ['rm -rf .venv-* build '],
}


@pytest.mark.parametrize('target', TARGETS)
def test_target_can_be_planned(target, run, load_tool, monkeypatch, capsys):
    """Its plan runs what the target is for, and names files, and options of our programs, that there are."""
    done = run('make', '--dry-run', target, PYTHON='true', STACK='onedl')
    assert done.returncode == 0, done.stdout
    assert all(command in done.stdout for command in RUNS[target]), done.stdout
    if target not in ('help', 'clean'):
        stack, venv = ('official', 'neighbours') if target == 'test-neighbours' else ('onedl', 'onedl')
        assert f'true scripts/install_stack.py --stack {stack} --venv .venv-{venv}' in done.stdout
        assert f'echo "make {target}: ' in done.stdout or target in ('install', 'environment', 'lint')
    for line in done.stdout.replace('\\\n', ' ').splitlines():
        words = [word for word in re.split(r'[\s;"]+', line) if word]
        files = [word for word in words if re.match(r'(configs|scripts|tests|tools)(/|$)', word)]
        assert all((ROOT / file).exists() for file in files), line
        program, = [file for file in files if file.endswith('.py') and not file.startswith('configs/')] or [None]
        if program is not None:
            monkeypatch.setattr('sys.argv', [program, '--help'])
            with pytest.raises(SystemExit):
                load_tool(Path(program).stem).main()
            known = capsys.readouterr().out
            assert all(re.search(rf'{word}(?![\w-])', known) for word in words if word.startswith('--')), line


def test_lint_looks_at_what_is_there(run):
    """And interrogate is told as much by the commit hook."""
    documented = re.search(r'^DOCUMENTED = (.*)$', MAKEFILE, re.MULTILINE)[1].split()
    assert all((ROOT / name).exists() for name in documented)
    hook, = (hook for hook in hooks() if hook['id'] == 'interrogate')
    assert hook['entry'].split()[2:] == documented


def test_there_are_workflows():
    assert [file.stem for file in WORKFLOWS] == ['quality', 'test']
    for file in WORKFLOWS:
        content = read(file)
        assert {'pull_request', 'push'} <= set(content[True])  # YAML's `on`
        for job in content['jobs'].values():
            assert 30 <= job['timeout-minutes'] <= 180


@pytest.mark.parametrize('file', [*WORKFLOWS, *ACTIONS], ids=lambda file: f'{file.parent.name}-{file.stem}')
def test_steps(file):
    """They run the Makefile's targets and nothing else; an action is the project's own, or has a version."""
    for step in steps(file):
        assert ('run' in step) != ('uses' in step)
        if 'run' in step:
            command, target, *variables = step['run'].split(maxsplit=2)
            assert command == 'make' and target in TARGETS
            assert all(variable.startswith('STACK=') for variable in variables)
        elif step['uses'].startswith('./'):
            action = read(ROOT / step['uses'] / 'action.yml')
            assert set(step['with']) == set(action['inputs'])
        else:
            assert re.fullmatch(r'actions/[\w/-]+@v\d+', step['uses'])


def test_all_targets_of_a_check_run():
    run = {step['run'].split()[1] for file in WORKFLOWS for step in steps(file) if 'run' in step}
    assert run == {'test-all', 'test-neighbours', 'lint', 'docs', 'coverage'}


def test_a_push_runs_the_tests_that_take_minutes():
    assert (ROOT / '.ci' / 'run').read_text(encoding='utf-8').endswith('exec make test\n')


def test_each_file_keeps_a_quick_test(request):
    """So that nothing breaks unseen by `make test`."""
    assert not request.config.stash[SLOW_FILES]


def test_stacks_and_python(load_tool):
    """The workflow's stacks are the installer's, its Python is the one that they are pinned for."""
    tool = load_tool('install_stack')
    matrix = read(ROOT / '.github' / 'workflows' / 'test.yml')['jobs']['test']['strategy']['matrix']
    assert sorted(matrix['stack']) == sorted(tool.STACKS)
    install = steps(ACTIONS[0])
    version, = (step['with']['python-version'] for step in install if 'setup-python' in step.get('uses', ''))
    assert version == '.'.join(map(str, tool.PYTHON))


def test_compiled_wheels_are_kept_where_the_installer_looks(load_tool, monkeypatch):
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    folder = load_tool('install_stack').wheel_folder('2.1.2')
    paths = {step['with']['path'] for step in steps(ACTIONS[0]) if '/cache/' in step.get('uses', '')}
    assert {Path(path).expanduser() for path in paths} == {folder.parent}


def hooks() -> list[dict]:
    return [hook for repo in read(ROOT / '.pre-commit-config.yaml')['repos'] for hook in repo['hooks']]


def test_hooks_have_the_pinned_versions():
    repositories = read(ROOT / '.pre-commit-config.yaml')['repos']
    assert [repository['repo'] for repository in repositories] == ['local']  # nothing but packages is downloaded
    linters = {line for line in (ROOT / 'requirements' / 'lint.txt').read_text().split() if not line.startswith('#')}
    assert {hook['id'] for hook in hooks()} == linters
    for hook in hooks():
        wanted = [f'{hook["id"]}=={pins(stack)[hook["id"]]}' for stack in ('official', 'onedl', 'classic')]
        assert hook['language'] == 'python' and {*wanted} == {*hook['additional_dependencies']}
        assert hook['entry'].split()[0] == hook['id']


def test_guide_names_the_targets(root):
    text = (root / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    assert set(re.findall(r'`make ([a-z-]+)', text)) <= set(TARGETS)
    table = re.findall(r'^\| `make ([a-z-]+)`', text, re.MULTILINE)
    assert {'test', 'test-all', 'test-neighbours', 'lint', 'coverage', 'docs'} <= set(table)


def test_changelog_has_this_version(root):
    """It is a version's heading, or still to come."""
    from dynconv_mm import __version__
    headings = re.findall(r'^## (.*)$', (root / 'CHANGELOG.md').read_text(encoding='utf-8'), re.MULTILINE)
    assert re.fullmatch(rf'Unreleased: {re.escape(__version__)}|{re.escape(__version__)} - \d{{4}}-\d\d-\d\d',
                        headings[0])

import re
import sys
from pathlib import Path

import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('install_stack')


def test_every_stack_pins_what_it_installs(tool):
    for name, stack in tool.STACKS.items():
        pins = tool.REQUIREMENTS / f'constraints-{name}.txt'
        wanted = [stack.mmcv, 'torch', 'torchvision', 'pip']
        for file in (stack.openmmlab, 'cpu.txt', *tool.DEVELOPMENT):
            wanted += [re.match(r'[\w.-]+', line)[0] for line in (tool.REQUIREMENTS / file).read_text().splitlines()
                       if line and not line.startswith('#')]
        for package in wanted:
            assert re.fullmatch(r'\d[\w.]*', tool.pinned(pins, package))


def test_unpinned_package(tool, tmp_path):
    (tmp_path / 'pins.txt').write_text('torch==2.1.2\n')
    with pytest.raises(SystemExit, match='does not pin mmcv'):
        tool.pinned(tmp_path / 'pins.txt', 'mmcv')


def test_other_python_is_refused(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, 'PYTHON', (3, 7))
    monkeypatch.setattr(sys, 'argv', ['install_stack.py', '--venv', str(tmp_path / 'venv')])
    with pytest.raises(SystemExit, match=r'make test PYTHON=python3\.7|pinned for Python 3\.7'):
        tool.main()
    assert not (tmp_path / 'venv').exists()


def test_stamp_follows_the_files(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    folder = tmp_path / 'package'
    (folder / '__pycache__').mkdir(parents=True)
    (folder / 'a.py').write_text('1')
    stamp = tool.Stamp(tmp_path / 'stamp', folder)
    assert not stamp.is_current()
    stamp.set()
    (folder / '__pycache__' / 'a.pyc').write_text('2')
    assert tool.Stamp(tmp_path / 'stamp', folder).is_current()
    (folder / 'a.py').rename(folder / 'b.py')
    assert not tool.Stamp(tmp_path / 'stamp', folder).is_current()


def test_kept_wheel_is_reused(tool, tmp_path, monkeypatch):
    """It is looked up by Python, torch and machine, and nothing is run."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(tool, 'run', lambda *_, **__: pytest.fail('compiles again'))
    folder = tool.wheel_folder('2.1.2')
    folder.mkdir(parents=True)
    wheel = folder / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
    wheel.touch()
    assert tool.mmcv_wheel(sys.executable, 'onedl-mmcv==2.3.6', '2.1.2') == wheel
    assert tool.wheel_folder('2.12.1') != folder


@pytest.mark.parametrize('missing, message', [('compiler', 'no C.. compiler'), ('headers', 'C headers of Python')])
def test_compiling_needs(tool, tmp_path, monkeypatch, missing, message):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(tool.shutil, 'which', lambda _: None if missing == 'compiler' else '/usr/bin/c++')
    include = tmp_path / 'include'
    include.mkdir()
    if missing == 'compiler':
        (include / 'Python.h').touch()
    monkeypatch.setattr(tool.sysconfig, 'get_paths', lambda: dict(include=str(include)))
    with pytest.raises(SystemExit, match=message):
        tool.mmcv_wheel(sys.executable, 'mmcv==2.1.0', '2.12.1')


def test_a_compiled_wheel_is_kept(tool, tmp_path, monkeypatch):
    """With its operators, in the folder where the next installation looks."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(tool.shutil, 'which', lambda _: '/usr/bin/c++')
    (tmp_path / 'Python.h').touch()
    monkeypatch.setattr(tool.sysconfig, 'get_paths', lambda: dict(include=str(tmp_path)))

    def compile_wheel(python, *arguments, env):
        assert env['MMCV_WITH_OPS'] == '1' and arguments[-1] == 'mmcv==2.1.0'
        (Path(arguments[arguments.index('-w') + 1]) / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl').write_text('wheel')

    monkeypatch.setattr(tool, 'run', compile_wheel)
    wheel = tool.mmcv_wheel(sys.executable, 'mmcv==2.1.0', '2.12.1')
    assert wheel.read_text() == 'wheel' and wheel.parent == tool.wheel_folder('2.12.1')
    assert list(wheel.parent.iterdir()) == [wheel]
    monkeypatch.setattr(tool, 'run', lambda *_, **__: pytest.fail('compiles again'))
    assert tool.mmcv_wheel(sys.executable, 'mmcv==2.1.0', '2.12.1') == wheel


def test_what_is_installed_is_not_installed_again(tool, tmp_path, monkeypatch):
    """Everything is pinned, mmcv comes before what asks for it, and each half is done once."""
    commands = []
    monkeypatch.setattr(tool, 'run', lambda python, *arguments, **_: commands.append(arguments))
    monkeypatch.setattr(tool, 'mmcv_wheel', lambda *_: tmp_path / 'mmcv.whl')
    monkeypatch.setattr(tool.venv, 'create', lambda folder, with_pip: (folder / 'bin').mkdir(parents=True))
    monkeypatch.setattr(sys, 'argv', ['install_stack.py', '--stack', 'onedl', '--venv', str(tmp_path / 'venv')])
    monkeypatch.setattr(tool, 'PYTHON', sys.version_info[:2])
    tool.main()
    assert [arguments[:3] for arguments in commands[:-1]] == [tool.INSTALL[:3]] * 6
    torch, mmcv, packages, package = (commands[number] for number in (1, 3, 4, 5))
    assert {'torch', 'torchvision'} < set(torch)
    assert mmcv[-1] == str(tmp_path / 'mmcv.whl') and '--no-deps' in mmcv
    assert package[-1] == str(tool.ROOT) and '--no-deps' in package
    assert commands[-1][-1] == 'check'
    named = {Path(argument).name for argument in packages if argument.endswith('.txt')}
    assert named == {'constraints-onedl.txt', 'openmmlab-onedl.txt', 'cpu.txt'}  # what a run needs
    for arguments in (torch, packages):
        assert arguments[arguments.index('-c') + 1].endswith('constraints-onedl.txt')
    commands.clear()
    tool.main()
    assert not commands
    sys.argv.append('--development')
    tool.main()
    development, = commands
    assert {Path(name).name for name in development if name.endswith('.txt')} == {'constraints-onedl.txt',
                                                                                  *tool.DEVELOPMENT}
    tool.main()
    assert len(commands) == 1


def test_a_command_that_fails_ends_the_installation(tool):
    tool.run(sys.executable, '-c', 'import os; assert os.environ["GIVEN"] == "1"', env={'GIVEN': '1'})
    with pytest.raises(SystemExit, match='failed with exit code 3'):
        tool.run(sys.executable, '-c', 'raise SystemExit(3)')

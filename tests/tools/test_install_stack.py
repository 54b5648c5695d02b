import re
import sys

import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('install_stack')


def test_every_stack_pins_what_it_installs(tool):
    for name, stack in tool.STACKS.items():
        pins = tool.REQUIREMENTS / f'constraints-{name}.txt'
        wanted = [stack.mmcv, 'torch', 'torchvision', 'pip']
        for file in (stack.openmmlab, *tool.DEVELOPMENT):
            wanted += [line for line in (tool.REQUIREMENTS / file).read_text().splitlines()
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

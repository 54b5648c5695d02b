"""Fixtures that tests of several folders share."""
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parent.parent


def interpret_triton() -> None:
    """Without a GPU, Triton's kernels are tested in its interpreter, for which it asks when it is first imported.

    Only from Triton 3 on: the older one that torch 2.1 imports for itself is left as it is.
    """
    try:
        major = int(version('triton').partition('.')[0])
    except PackageNotFoundError:
        return
    if major >= 3 and not torch.cuda.is_available():
        os.environ.setdefault('TRITON_INTERPRET', '1')


interpret_triton()


@pytest.fixture(autouse=True)
def scopes(monkeypatch):
    """Each test starts without a default scope: another's, say mmdet, would hide mmpretrain's modules."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())


@pytest.fixture(scope='session')
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope='session')
def load_tool():
    """Import a module of tools/, which is no package; as when it is run, it finds its neighbours there."""

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(ROOT / 'tools')
            spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope='session')
def digits(tmp_path_factory, load_tool) -> Path:
    """A handful of images of the demo's data set."""
    folder = tmp_path_factory.mktemp('digits') / 'digits'
    load_tool('make_digits_coco').main([str(folder), '--train', '10', '--val', '4'])
    return folder


@pytest.fixture
def run():
    """Run a command as a user would, from the project's folder; returns the finished process with its output."""

    def run_command(*command: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
        return subprocess.run([str(part) for part in command], cwd=cwd, env={**os.environ, 'PATH': path, **env},
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)

    return run_command

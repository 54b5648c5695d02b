#!/usr/bin/env python3
"""Create a virtual environment that holds one tested stack and this package.

Standard library only: it runs before anything is installed. Each step is
skipped when it is already done, so an interrupted installation goes on where
it stopped. The wheel of mmcv, which PyPI has as source only and which takes
minutes to compile, is kept per Python and torch version and reused.
"""
from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'


@dataclass(frozen=True)
class Stack:
    """What a stack installs; versions stand in its constraints file."""

    mmcv: str
    openmmlab: str
    about: str


STACKS = {
    'official': Stack('mmcv', 'openmmlab.txt', 'the OpenMMLab releases on a current torch'),
    'onedl': Stack('onedl-mmcv', 'openmmlab-onedl.txt', 'the maintained onedl forks'),
    'classic': Stack('mmcv', 'openmmlab.txt', 'the OpenMMLab releases on torch 2.1'),
}
PYTHON = (3, 11)
INSTALL = ('-m', 'pip', 'install', '--disable-pip-version-check')
DEVELOPMENT = ('tests.txt', 'lint.txt', 'docs.txt')
NEIGHBOURS = ('neighbours.txt', )
PACKAGE = ('dynconv_mm', 'configs', 'tools', 'dynconv_mm_scope', 'dynconv_mm_scope.pth', 'model-index.yml',
           'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md')


def fail(message: str) -> NoReturn:
    """End with a message and exit code 1."""
    sys.exit(f'install_stack: {message}')


def pinned(constraints: Path, package: str) -> str:
    """The version at which ``constraints`` pins ``package``."""
    for line in constraints.read_text().splitlines():
        name, _, version = line.partition('==')
        if name.strip().lower() == package.lower() and version:
            return version.strip()
    fail(f'{constraints} does not pin {package}')


def run(python: Path, *arguments: str, env: dict | None = None) -> None:
    """Run this Python with these arguments, printed first; end where it fails."""
    command = [str(python), *arguments]
    print('+', ' '.join(arguments), flush=True)
    done = subprocess.run(command, env={**os.environ, **(env or {})})
    if done.returncode:
        fail(f'`python {" ".join(arguments)}` failed with exit code {done.returncode}; its message '
             'is above. Running the same command again goes on from here.')


def fingerprint(*paths: Path) -> str:
    """Changes when any of these files, or a file in these folders, changes."""
    digest = hashlib.sha256(sys.version.encode())
    for path in paths:
        files = sorted(file for file in path.rglob('*') if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if not {'__pycache__', '.mim'} & set(file.parts):
                digest.update(f'{file.relative_to(ROOT)}\0'.encode() + file.read_bytes())
    return digest.hexdigest()


class Stamp:
    """Remembers in the environment what was installed, so that it is not installed again."""

    def __init__(self, file: Path, *paths: Path) -> None:
        self.file, self.fingerprint = file, fingerprint(*paths)

    def is_current(self) -> bool:
        """Whether what is installed is what the files ask for."""
        return self.file.exists() and self.file.read_text() == self.fingerprint

    def set(self) -> None:
        """Remember it as installed."""
        self.file.write_text(self.fingerprint)


def wheel_folder(torch_version: str) -> Path:
    """Compiled code fits one Python, one torch and one kind of machine."""
    cache = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
    tag = f'cp{PYTHON[0]}{PYTHON[1]}-torch{torch_version}-{platform.machine()}'
    return cache / 'dynconv_mm' / 'wheels' / tag


def mmcv_wheel(python: Path, requirement: str, torch_version: str) -> Path:
    """The compiled mmcv, from the kept wheels or built now."""
    name, _, version = requirement.partition('==')
    folder = wheel_folder(torch_version)
    pattern = f'{name.replace("-", "_")}-{version}-cp*.whl'
    kept = sorted(folder.glob(pattern))
    if kept:
        print(f'reusing {kept[-1]}')
        return kept[-1]
    if not (Path(sysconfig.get_paths()['include']) / 'Python.h').exists():
        fail(f'the C headers of Python {sys.version.split()[0]} are missing, and {name} is compiled '
             'against them: install them (Debian, Ubuntu: `apt install python3-dev`)')
    if not any(shutil.which(compiler) for compiler in (os.environ.get('CXX', 'g++'), 'c++', 'clang++')):
        fail(f'no C++ compiler found, and {name} must be compiled: install one '
             '(Debian, Ubuntu: `apt install g++`) or name it in CXX')
    print(f'compiling {requirement} for torch {torch_version}: about 8 minutes on 2 cores, once', flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as building:
        run(python, '-m', 'pip', 'wheel', '--no-build-isolation', '--no-deps', '--no-cache-dir', '--no-binary', name,
            '-w', building, requirement,
            # no debug information, which would take 40% of the time
            env={'MMCV_WITH_OPS': '1', 'CFLAGS': f'{os.environ.get("CFLAGS", "")} -g0'})
        built, = Path(building).glob(pattern)
        wheel = built.replace(folder / built.name)
    print(f'compiled in {(time.monotonic() - started) / 60:.1f} minutes')
    return wheel


def install_packages(name: str, folder: Path, python: Path) -> None:
    """Everything but this package."""
    stack = STACKS[name]
    if not python.exists():
        print(f'creating {folder}')
        venv.create(folder, with_pip=True)
    constraints = REQUIREMENTS / f'constraints-{name}.txt'
    torch_version = pinned(constraints, 'torch')
    run(python, *INSTALL, f'pip=={pinned(constraints, "pip")}')
    run(python, *INSTALL, '-c', str(constraints), 'torch', 'torchvision', 'numpy')
    run(python, *INSTALL, '-r', str(REQUIREMENTS / 'build.txt'))
    wheel = mmcv_wheel(python, f'{stack.mmcv}=={pinned(constraints, stack.mmcv)}', torch_version)
    # the same version may be installed from a build against another torch
    run(python, *INSTALL, '--force-reinstall', '--no-deps', str(wheel))
    install_files(python, constraints, stack.openmmlab, 'cpu.txt')


def install_files(python: Path, constraints: Path, *names: str) -> None:
    """What files of ``requirements/`` list."""
    files = [argument for name in names for argument in ('-r', str(REQUIREMENTS / name))]
    isolation = []
    if names == NEIGHBOURS:
        # sources, which mmpose requires, are built beside what is installed: chumpy asks for pip and numpy, xtcocotools
        # for numpy and Cython
        isolation = ['--no-build-isolation']
        run(python, *INSTALL, f'Cython=={pinned(REQUIREMENTS / names[0], "Cython")}')
    run(python, *INSTALL, *isolation, '-c', str(constraints), *files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--stack', choices=sorted(STACKS), default='official',
                        help='; '.join(f'{name}: {stack.about}' for name, stack in STACKS.items()))
    parser.add_argument('--venv', type=Path, required=True, help='folder of the virtual environment')
    parser.add_argument('--development', action='store_true', help='with what tests, lint and documentation need')
    parser.add_argument('--neighbours', action='store_true', help='with the toolboxes that tests/neighbours are about')
    args = parser.parse_args()
    if sys.version_info[:2] != PYTHON:
        fail(f'the stacks are pinned for Python {PYTHON[0]}.{PYTHON[1]}, and this is '
             f'{sys.version.split()[0]}: run with another one, e.g. `make test PYTHON=python3.11`')
    folder = args.venv.resolve()
    python = folder / 'bin' / 'python'
    constraints = REQUIREMENTS / f'constraints-{args.stack}.txt'
    requirements = [REQUIREMENTS / name for name in (STACKS[args.stack].openmmlab, 'build.txt', 'cpu.txt')]
    packages = Stamp(folder / '.packages', Path(__file__).resolve(), constraints, *requirements)
    if not packages.is_current():
        install_packages(args.stack, folder, python)
        packages.set()
        print(f'the packages of stack {args.stack} are installed in {folder}')
    for asked, name, files in ((args.development, '.development', DEVELOPMENT),
                               (args.neighbours, '.neighbours', NEIGHBOURS)):
        more = Stamp(folder / name, constraints, *(REQUIREMENTS / file for file in files))
        if asked and not more.is_current():
            install_files(python, constraints, *files)
            more.set()
    source = Stamp(folder / '.dynconv-mm', *(ROOT / name for name in PACKAGE))
    if not source.is_current():
        shutil.rmtree(ROOT / 'build', ignore_errors=True)  # setuptools would pack what an earlier build left there
        run(python, *INSTALL, '--quiet', '--no-deps', '--force-reinstall', '--no-build-isolation', str(ROOT))
        run(python, '-m', 'pip', 'check')
        source.set()


if __name__ == '__main__':
    main()

"""Imports run one way: functional ← layers ← models ← engine, datasets, evaluation, … ← tools, scripts."""
from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from module_imports import imports, module_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'dynconv_mm'
BELOW = ('compat', 'version', 'atomic_write')
"""What any part but ``functional`` may use, and what uses none of them."""
ORDER = {'functional': 0, 'layers': 1, 'models': 2}
"""Every other folder or module of the package stands above these."""
ABOVE = 3
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py')


def part(name: str) -> str | None:
    """The folder, or module, of the package in which a dotted name lies; None outside of the package."""
    package, *rest = name.split('.')
    return (rest[0] if rest else '') if package == 'dynconv_mm' else None


def is_allowed(importer: str, imported: str) -> bool:
    """Whether a part of the package may import another."""
    if importer == imported:
        return True
    if importer in BELOW:
        return imported in BELOW
    if imported in BELOW:
        return importer != 'functional'
    low, high = ORDER.get(imported, ABOVE), ORDER.get(importer, ABOVE)
    # those on top of models may use each other, in one direction; the package itself, '', is for tools
    return imported != '' and (low < high or low == high == ABOVE)


def test_downward():
    upward = [(str(file), name) for file in FILES for name in imports(PACKAGE / file, module_name(file))
              if part(name) is not None and not is_allowed(file.with_suffix('').parts[0], part(name))]
    assert not upward


def test_no_circle():
    """The parts of the package can be put in a row."""
    graph = {}
    for file in FILES:
        importer = file.with_suffix('').parts[0]
        imported = {part(name) for name in imports(PACKAGE / file, module_name(file))}
        graph.setdefault(importer, set()).update(imported - {None, importer})
    while graph:
        free = [name for name, used in graph.items() if not used & graph.keys()]
        assert free, f'these import each other: {graph}'
        for name in free:
            del graph[name]


def test_functional_stands_on_torch_alone():
    for file in FILES:
        if file.parts[0] == 'functional':
            names = {name.partition('.')[0] for name in imports(PACKAGE / file, module_name(file))}
            kernels = {'triton'} if 'triton' in file.parts else {'numba', 'numpy'} if 'numba' in file.parts else set()
            assert names <= {'torch', 'dynconv_mm', *kernels, *sys.stdlib_module_names}, file


def test_mmdet_and_mmpretrain_are_imported_when_needed():
    """By the modules of heads and necks, which nothing imports but others of them."""
    on_optional = {file for file in FILES if file.parent.name in ('heads', 'necks') and file.name != '__init__.py'}
    assert len(on_optional) == 5
    optional = {module_name(file) for file in on_optional}
    for file in FILES:
        if file not in on_optional:
            names = imports(PACKAGE / file, module_name(file), at_top=True)
            assert not {name.partition('.')[0] for name in names} & {'mmdet', 'mmpretrain'}, file
            assert not names & optional, file


@pytest.mark.parametrize('package', ['dynconv_mm', 'dynconv_mm.models', 'dynconv_mm.models.heads'])
def test_a_name_that_there_is_not(package):
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'ODConv3d'"):
        _ = importlib.import_module(package).ODConv3d


def test_nothing_imports_tools_but_tools():
    tools = {path.stem for folder in ('tools', 'scripts') for path in (ROOT / folder).rglob('*.py')}
    for file in FILES:
        assert not {name.partition('.')[0] for name in imports(PACKAGE / file, module_name(file))} & {
            'tools', 'scripts', *tools}


def test_import_leaves_the_process_as_it_was(run):
    """What is for the whole process: hooks, signals, settings of warnings, of torch and of numpy, the environment."""
    code = ('import os, signal, sys, threading, warnings, mmcv.cnn, mmengine.runner, numpy, torch\n'
            'def state():\n'
            '    return (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook,\n'
            '            [*sys.meta_path], [*map(signal.getsignal, signal.valid_signals())], [*warnings.filters],\n'
            '            dict(os.environ), numpy.geterr(), torch.get_default_dtype(), torch.get_num_threads(),\n'
            '            torch.is_grad_enabled(), torch.load)\n'
            'before = state()\n'
            'import dynconv_mm\n'
            'print("changed:", [new for old, new in zip(before, state()) if new != old])')
    assert run(sys.executable, '-W', 'ignore', '-c', code).stdout.splitlines()[-1] == 'changed: []'


@pytest.mark.parametrize('importer, imported, allowed', [
    ('functional', 'layers', False), ('layers', 'functional', True), ('layers', 'models', False),
    ('models', 'layers', True), ('layers', 'compat', True), ('functional', 'atomic_write', False),
    ('compat', 'functional', False), ('layers', '', False), ('layers', 'analysis', False),
    ('analysis', 'models', True), ('evaluation', 'datasets', True), ('analysis', '', False),
])
def test_rule(importer, imported, allowed):
    assert is_allowed(importer, imported) == allowed


def test_imports_are_found(tmp_path):
    file = tmp_path / 'a.py'
    file.write_text('import os.path\nfrom . import b\nfrom .c import d\nfrom ..layers.e import f\n'
                    'def g():\n    import mmdet\nclass C:\n    import mmcv\n'
                    'if TYPE_CHECKING:\n    import mmpretrain\n')
    at_top = {'os.path', 'dynconv_mm.models.b', 'dynconv_mm.models.c', 'dynconv_mm.layers.e', 'mmcv'}
    assert imports(file, 'dynconv_mm.models.a', at_top=True) == at_top
    assert imports(file, 'dynconv_mm.models.a') == at_top | {'mmdet', 'mmpretrain'}

"""Imports run one way: functional ← layers ← models ← engine, datasets, evaluation, conversion, analysis ← tools."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest
from module_imports import imports, module_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'dynconv_mm'
BELOW = ('compat', 'version', 'whole_file')
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
            kernels = dict(triton={'triton'}, numba={'numba', 'numpy'}).get(file.parts[1], set())
            assert names <= {'torch', 'dynconv_mm', *kernels, *sys.stdlib_module_names}, file


def test_mmdet_and_mmpretrain_are_imported_when_needed():
    for file in FILES:
        names = {name.partition('.')[0] for name in imports(PACKAGE / file, module_name(file), at_top=True)}
        assert not names & {'mmdet', 'mmpretrain'}, file


def test_nothing_imports_tools_but_tools():
    tools = {path.stem for path in (ROOT / 'tools').glob('*.py')}
    for file in FILES:
        assert not {name.partition('.')[0] for name in imports(PACKAGE / file, module_name(file))} & {'tools', *tools}


@pytest.mark.parametrize('importer, imported, allowed', [
    ('functional', 'layers', False), ('layers', 'functional', True), ('layers', 'models', False),
    ('models', 'layers', True), ('layers', 'compat', True), ('functional', 'whole_file', False),
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

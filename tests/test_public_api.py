"""The public names are those of the list in ``tests/data/public_api.txt``, and all that is public has type hints.

Run as a program, this file writes the list: a changed line is a changed interface, to be meant and to be said in
CHANGELOG.md.
"""
from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import dynconv_mm

LIST = Path(__file__).resolve().parent / 'data' / 'public_api.txt'


def module_names(packages_only: bool = False) -> list[str]:
    """All modules, but for the kernels: they can be imported where Triton or Numba is alone, and take numbers; and
    adapters, which need what they are for."""
    found = [module.name for module in pkgutil.walk_packages(dynconv_mm.__path__, 'dynconv_mm.')
             if module.ispkg or not packages_only]
    others = ('dynconv_mm.functional.backends.triton.', 'dynconv_mm.functional.backends.numba.compiled.',
              'dynconv_mm.adapters.')
    return ['dynconv_mm', *(name for name in found if not name.startswith(others))]


class Hint(str):
    """An annotation that :mod:`inspect` shows without quotation marks."""

    __repr__ = str.__str__


def own_functions(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Public functions and methods that a module defines, by name."""
    for name, item in vars(module).items():
        if name.startswith('_') or getattr(item, '__module__', None) != module.__name__:
            continue
        if inspect.isclass(item):
            for method_name in vars(item):
                method = inspect.getattr_static(item, method_name)
                method = method.fget if isinstance(method, property) else getattr(method, '__func__', method)
                if inspect.isfunction(method) and (method_name == '__init__' or not method_name.startswith('_')):
                    yield f'{name}.{method_name}', method
        elif callable(item) and inspect.isfunction(inspect.unwrap(item)):
            yield name, inspect.unwrap(item)


def without_hints(function: object) -> list[str]:
    """The parameters of a function, and 'return', that have no type; ``*args`` and ``**kwargs`` need none."""
    signature = inspect.signature(function)
    names = [name for name, parameter in signature.parameters.items()
             if parameter.annotation is parameter.empty and name not in ('self', 'cls')
             and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
    return names + ['return'] * (signature.return_annotation is signature.empty)


def test_hints():
    missing = {f'{name}.{item}': hints for name in module_names()
               for item, function in own_functions(import_module(name)) if (hints := without_hints(function))}
    assert not missing


def test_missing_hints_are_found():
    module = ModuleType('module')
    exec('class A:\n  def f(self, x: int, *args, y=1, **kwargs): ...\n  @property\n  def p(self): ...\n'
         '  def _g(self, x): ...\ndef f(x) -> None: ...\ndef g(x: int) -> None: ...', vars(module))
    missing = {item: without_hints(function) for item, function in own_functions(module)}
    assert missing == {'A.f': ['y', 'return'], 'A.p': ['return'], 'f': ['x'], 'g': []}


def interface() -> list[str]:
    """A line for each name in a package's ``__all__``, with its signature at the deepest package that lists it."""
    public = {name: module for name in module_names(packages_only=True)
              if hasattr(module := import_module(name), '__all__')}
    homes = {id(getattr(module, name)): package for package, module in sorted(public.items(), key=depth)
             for name in module.__all__}
    lines = []
    for package, module in public.items():
        for name in module.__all__:
            item, path = getattr(module, name), f'{package}.{name}'
            home = homes[id(item)]
            if home != package:
                lines.append(f'{path} is {home}.{name}')
            else:
                lines += description(path, item, set(homes))
    return sorted(lines, key=lambda line: line.removeprefix('class '))


def depth(entry: tuple[str, object]) -> int:
    """How deep a package lies."""
    return entry[0].count('.')


def description(path: str, item: object, public: set[int]) -> list[str]:
    """A public item and, of a class, the methods that this package defines and no ``public`` base of it has already."""
    if inspect.ismodule(item):
        return [f'{path}: module']
    if not callable(item):
        return [f'{path}: {type(item).__name__}']
    if inspect.isclass(item) and issubclass(item, Exception):
        return [f'class {path} of {", ".join(base.__name__ for base in item.__bases__)}']
    if inspect.isfunction(item):
        return [f'{path}{signature(item)}']
    lines = [f'class {path}']
    if is_own(item, '__init__') or is_own(item, '__new__'):
        lines[0] += signature(item).removesuffix(' -> None')
    for name, member in inspect.getmembers_static(item):
        function = getattr(member, '__func__', member)
        if name.startswith('_') or not is_own(item, name) or not inspect.isfunction(function):
            continue
        if not any(id(base) in public and getattr(base, name, None) is function for base in item.__mro__[1:]):
            lines.append(f'{path}.{name}{signature(function)}')
    return lines


def is_own(item: type, name: str) -> bool:
    """Whether this package, not a library, defines an attribute of a class."""
    return next((base for base in item.__mro__ if name in vars(base)), object).__module__.startswith('dynconv_mm.')


def signature(function: object) -> str:
    """A signature with its hints as they are written."""
    found = inspect.signature(function)
    parameters = [parameter.replace(annotation=hint(parameter.annotation))
                  for parameter in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=hint(found.return_annotation)))


def hint(annotation: object) -> object:
    """An annotation as :func:`signature` shows it."""
    return Hint(annotation) if isinstance(annotation, str) else annotation


def test_interface():
    assert interface() == LIST.read_text(encoding='utf-8').splitlines(), (
        'the public interface has changed: if that is meant, run `python tests/test_public_api.py` and say it in '
        'CHANGELOG.md')


@pytest.mark.parametrize('package', module_names(packages_only=True))
def test_all_lists_what_is_imported(package):
    """``__all__`` is sorted, and lists what the package takes from its own modules."""
    module = import_module(package)
    names = getattr(module, '__all__', [])
    assert list(names) == sorted(set(names))
    imported = {name for name, item in vars(module).items() if not name.startswith('_')
                and (inspect.isclass(item) or inspect.isfunction(item))
                and item.__module__.startswith(f'{package}.')}
    if names and package != 'dynconv_mm':
        assert imported <= set(names)


if __name__ == '__main__':
    from dynconv_mm.atomic_write import atomic_write
    with atomic_write(LIST) as partial:
        partial.write_text('\n'.join(interface()) + '\n', encoding='utf-8')
    print(f'written: {LIST}')

"""The examples, imported as modules."""
from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def load_example(root) -> Callable[[str], ModuleType]:
    """Import a script of examples/."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, root / 'examples' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load

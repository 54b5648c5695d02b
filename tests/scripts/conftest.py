"""Fixtures of the tests of ``scripts/``."""
import importlib
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def load_script(root, monkeypatch) -> Callable[[str], ModuleType]:
    """Import a script, or what scripts share, by its name."""
    monkeypatch.syspath_prepend(root / 'scripts')
    return importlib.import_module

"""Where tests/conftest.py says which files of tests are slow as a whole."""
import pytest

SLOW_FILES = pytest.StashKey[list[str]]()

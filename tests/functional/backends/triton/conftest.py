"""Where Triton's kernels are tested: compiled on the GPU if there is one, else in Triton's interpreter."""
from __future__ import annotations

import pytest
import torch


@pytest.fixture
def device() -> str:
    from dynconv_mm.functional.backends.triton.common import INTERPRETED
    assert INTERPRETED or torch.cuda.is_available(), (
        'tests/conftest.py sets TRITON_INTERPRET, but Triton was imported before it: by which pytest plugin?')
    return 'cpu' if INTERPRETED else 'cuda'

"""A fixture of tests that are faster on one thread: a conftest imports it."""
from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope='package', autouse=True)
def single_thread():
    """These networks are so small that threads would spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

"""A mark of tests that compile a model as one graph."""
from __future__ import annotations

import pytest
import torch
from mmengine.utils import digit_version

needs_one_graph = pytest.mark.skipif(digit_version(torch.__version__.partition('+')[0]) < digit_version('2.2'),
                                     reason='torch 2.1 compiles these models in several graphs')

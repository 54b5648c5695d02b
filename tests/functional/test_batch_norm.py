"""A batch norm by running statistics as a scaling of the channels."""
from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dynconv_mm.functional import BatchNorm
from dynconv_mm.functional.batch_norm import scale_and_shift


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_scale_and_shift(affine, bias):
    mean, weight, shift, conv_bias = torch.randn(4, 7, dtype=torch.float64)
    variance = torch.rand(7, dtype=torch.float64) + .1
    norm = BatchNorm(mean, variance, weight if affine else None, shift if affine else None, 1e-3)
    x = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    scale, shift = scale_and_shift(norm, conv_bias if bias else None)
    expected = F.batch_norm(x + conv_bias[:, None, None] if bias else x, *norm[:4], eps=norm.eps)
    torch.testing.assert_close(x * scale[:, None, None] + shift[:, None, None], expected, rtol=1e-12, atol=1e-12)

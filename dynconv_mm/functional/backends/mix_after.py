"""The convolutions by all n kernels, then their sum: for maps with fewer pixels than there are kernels."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..mixture_conv import MIXTURE_CONV, Mixture
from ..operator import Backend
from .shared import needs_no_spatial, scaled_input, scaled_output


def mix_after(m: Mixture) -> Tensor:
    """One convolution with n times the output channels."""
    n, out_channels = m.weight.shape[:2]
    # the kernels of a group side by side
    bank = m.weight.unflatten(1, (m.groups, -1)).transpose(0, 1).flatten(0, 2)
    y = F.conv2d(scaled_input(m), bank, None, *m[7:11])
    y = y.view(len(y), m.groups, n, out_channels // m.groups, *y.shape[2:])
    if m.kernel_attention is not None:
        y = y * m.kernel_attention.reshape(len(y), 1, n, 1, 1, 1)
    return scaled_output(m, y.sum(2).flatten(1, 2))


MIXTURE_CONV.backends['mix_after'] = Backend(mix_after, needs_no_spatial)

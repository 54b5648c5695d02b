"""Convolution whose kernel differs from sample to sample."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .plans import check_plan

IntPair = tuple[int, int]


def sample_conv2d(input: Tensor,
                  weight: Tensor,
                  *,
                  stride: int | IntPair = 1,
                  padding: int | IntPair = 0,
                  dilation: int | IntPair = 1,
                  groups: int = 1,
                  plan: str = 'auto') -> Tensor:
    r"""Convolve each sample by its own kernel (DCDC, Eq. 8).

    .. math:: y_b = W_b * x_b

    Args:
        input (Tensor[batch, in_channels, height, width]): features; the batch may be empty.
        weight (Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]): the kernels W_b.
        stride, padding, dilation, groups: as in :func:`torch.nn.functional.conv2d`.
        plan (str): how to execute it, one of :data:`~dynconv_mm.functional.PLANS`, or 'auto'. Every plan
            gives the same numbers.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]

    Raises:
        ValueError: a tensor's shape does not fit the others, or ``plan`` is unknown.

    Example:
        >>> x, weight = torch.randn(2, 8, 9, 9), torch.randn(2, 6, 8, 3, 3)
        >>> sample_conv2d(x, weight, padding=1).shape
        torch.Size([2, 6, 9, 9])
    """
    check_plan(plan)
    if input.dim() != 4:
        raise ValueError(f'input must be [batch, channels, height, width], but its shape is {tuple(input.shape)}')
    batch, channels = input.shape[:2]
    if weight.dim() != 5 or weight.shape[0] != batch or weight.shape[2] * groups != channels \
            or weight.shape[1] % groups:
        raise ValueError(f'weight must be [{batch}, out_channels, {channels} / groups, kernel_height, kernel_width] '
                         f'with groups={groups}, but its shape is {tuple(weight.shape)}')
    if batch == 0:  # no kernels: an empty map of the right shape, with zero gradients for both inputs
        return F.conv2d(input, weight.sum(0), None, stride, padding, dilation, groups)
    y = F.conv2d(input.reshape(1, -1, *input.shape[2:]), weight.flatten(0, 1), None, stride, padding, dilation,
                 batch * groups)
    return y.view(batch, -1, *y.shape[2:])

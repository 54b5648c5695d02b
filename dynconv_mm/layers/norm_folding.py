"""A convolution and the batch norm behind it as one operation, where that gives the same."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor, *shared: Tensor) -> Tensor:
    """``norm(conv(x, *shared))``.

    A layer with ``forward_scaled`` takes over the scale and the shift of a batch norm in eval mode, which saves a pass
    over its output.

    Args:
        conv, norm (Module): a convolution and its norm.
        x (Tensor[batch, in_channels, height, width]): features.
        shared (Tensor): what the convolutions of a block share, such as routing weights.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]
    """
    if not hasattr(conv, 'forward_scaled') or not is_constant(norm) or has_hooks(conv) or has_hooks(norm):
        return norm(conv(x, *shared))
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = norm.weight * scale
    bias = torch.zeros_like(scale) if norm.bias is None else norm.bias
    return conv.forward_scaled(x, scale, torch.addcmul(bias, norm.running_mean, scale, value=-1), *shared)


def is_constant(norm: nn.Module) -> bool:
    """Whether it is a batch norm in eval mode."""
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to see what goes through it."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks)

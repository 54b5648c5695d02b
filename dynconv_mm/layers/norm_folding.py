"""A convolution and the batch norm behind it as one operation, where that gives the same."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..functional.fused import Norm, fused_scale_and_shift


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor, *shared: Tensor) -> Tensor:
    """``norm(conv(x, *shared))``.

    A layer with ``forward_norm`` takes over a batch norm in eval mode, which saves a pass over its output.

    Args:
        conv, norm (Module): a convolution and its norm.
        x (Tensor[batch, in_channels, height, width]): features.
        shared (Tensor): what the convolutions of a block share, such as routing weights.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]
    """
    if not hasattr(conv, 'forward_norm') or not is_constant(norm) or has_hooks(conv) or has_hooks(norm):
        return norm(conv(x, *shared))
    return conv.forward_norm(x, norm, *shared)


def scale_and_shift(norm: nn.Module, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """A bias and a batch norm in eval mode behind it as a scale and a shift, Tensor[channels] each.

    Args:
        norm (Module): the batch norm.
        bias (Tensor[channels], optional): of the convolution.
    """
    affine = fused_scale_and_shift(norm_tensors(norm))
    if affine is None:
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = norm.weight * scale
        of_norm = torch.zeros_like(scale) if norm.bias is None else norm.bias
        affine = scale, torch.addcmul(of_norm, norm.running_mean, scale, value=-1)
    scale, shift = affine
    return scale, shift if bias is None else shift + bias * scale


def norm_tensors(norm: nn.Module) -> Norm:
    """What a batch norm in eval mode computes with."""
    return Norm(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


def is_constant(norm: nn.Module) -> bool:
    """Whether it is a batch norm in eval mode."""
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody wants to see what goes through it."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks)

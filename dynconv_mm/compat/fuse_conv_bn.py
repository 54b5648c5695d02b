"""mmcv's ``fuse_conv_bn`` for networks of static and dynamic convolutions.

mmcv's own keeps the last ``Conv2d`` in mind until a batch norm comes, past all modules that it does not know: with a
dynamic convolution between the two it folds that one's norm into the static one.
"""
from __future__ import annotations

import sys
from collections import Counter

import mmcv.cnn
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

PLAIN_CONVS = {kind.forward for kind in (nn.Conv2d, MMCVConv2d, Conv2dAdaptivePadding)}
PLAIN_NORMS = {kind.forward for kind in (_BatchNorm, nn.SyncBatchNorm)}


def fuse_conv_bn(module: nn.Module) -> nn.Module:
    """Fold batch norms, by their running statistics, into the convolutions before them, in place; for inference.

    A norm is folded into the convolution that stands directly before it, an ``nn.Conv2d`` or a layer with a method
    ``fuse_batch_norm``, and is an identity then. It stays where the convolution stands in several places, or where
    either has hooks or computes in a way of its own.

    Args:
        module (Module): its submodules stand in the order in which they run.

    Returns:
        Module: the same.
    """
    parents = list(module.modules())
    places = Counter(id(child) for parent in parents for child in parent._modules.values())
    for parent in parents:
        previous = None
        for name, child in list(parent.named_children()):
            if previous is not None and places[id(previous)] == 1 and _is_plain_norm(child) and _runs_in_order(parent) \
                    and _fold(child, previous):
                parent._modules[name] = nn.Identity()
            previous = child
    return module


def _is_plain_norm(module: nn.Module) -> bool:
    return type(module).forward in PLAIN_NORMS and _is_unchanged(module) and module.running_mean is not None


def _is_unchanged(module: nn.Module) -> bool:
    """Whether its forward is that of its class, and no hook sees or changes what it takes and puts out."""
    return not ('forward' in vars(module) or module._forward_hooks or module._forward_pre_hooks)


def _runs_in_order(parent: nn.Module) -> bool:
    """mmcv's ConvModule holds convolution and norm in this order and runs them in one of its own."""
    return not isinstance(parent, ConvModule) or parent.order.index('norm') == parent.order.index('conv') + 1


def _fold(norm: _BatchNorm, conv: nn.Module) -> bool:
    if hasattr(type(conv), 'fuse_batch_norm'):
        return conv.fuse_batch_norm(norm)
    if not isinstance(conv, nn.Conv2d) or type(conv).forward not in PLAIN_CONVS or not _is_unchanged(conv) \
            or type(conv)._conv_forward is not nn.Conv2d._conv_forward or 'weight' not in conv._parameters:
        return False
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
                                                  norm.weight, norm.bias)
    return True


def install_fuse_conv_bn() -> None:
    """Put it in the place of mmcv's, under that name in all modules; done by ``import dynconv_mm``.

    Code that has kept mmcv's function under another name gets mmcv's rules for the module that it passes, and these for
    all modules within: mmcv's function calls itself by its name.
    """
    original = mmcv.cnn.fuse_conv_bn
    for module in list(sys.modules.values()):
        if getattr(module, '__dict__', {}).get('fuse_conv_bn') is original:
            module.fuse_conv_bn = fuse_conv_bn

"""The fully connected layer of the attentions."""
from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..functional.attention import fully_connected, parameters_of


class FullyConnected(nn.Module):
    """A fully connected layer over pooled features, with a convolution's weight shape.

    It is no ``Conv2d`` by class, so that ``init_cfg=dict(layer='Conv2d')`` of a parent leaves it alone.

    Args:
        in_channels, out_channels (int): sizes.
        pool_size (int, optional): p, the pooled size; None is 1, and the weight a matrix. Default: 1.
        bias (bool): whether there is a bias. Default: True.

    Shape:
        input Tensor[batch, in_channels, p, p], output Tensor[batch, out_channels], p the pooled size
    """

    def __init__(self, in_channels: int, out_channels: int, pool_size: int | None = 1, bias: bool = True) -> None:
        super().__init__()
        pooled = () if pool_size is None else (pool_size, pool_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *pooled))
        self.register_parameter('bias', nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.init_weights()

    def init_weights(self) -> None:
        """Kaiming-normal by fan-out, biases 0, as the reference."""
        nn.init.kaiming_normal_(self.weight, mode='fan_out', nonlinearity='relu')
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def fuse_batch_norm(self, norm: nn.Module) -> bool:
        """Fold a batch norm behind it, by its running statistics, into its weight and bias.

        Args:
            norm (Module): the batch norm; it stays as it is.

        Returns:
            bool: False where it has hooks, a forward of its own or a weight that is computed, and stays as it is.
        """
        if parameters_of(self) is None:
            return False
        self.weight, bias = fuse_conv_bn_weights(self.weight, self.bias, norm.running_mean, norm.running_var, norm.eps,
                                                 norm.weight, norm.bias)
        self.register_parameter('bias', bias)
        return True

    forward = fully_connected

    def extra_repr(self) -> str:
        out_channels, in_channels, *pooled = self.weight.shape
        pooled = f', pool_size={pooled[0]}' if pooled and pooled[0] > 1 else ''
        return f'{in_channels}, {out_channels}{pooled}, bias={self.bias is not None}'

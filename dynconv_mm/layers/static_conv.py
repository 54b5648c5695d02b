"""The static convolutions inside dynamic layers."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..functional.batch_norm import BatchNorm
from ..functional.conv import conv2d
from .conv_arguments import ConvArguments

torch.fx.wrap('conv2d')


class StaticConv2d(ConvArguments):
    """:class:`torch.nn.Conv2d`, for use inside a layer.

    It is no ``Conv2d`` by class, so that ``init_cfg=dict(layer='Conv2d')`` of a parent leaves it alone: a detector's
    head, for example, gives all of its convolutions a normal distribution, which suits those that it has itself.

    Takes the arguments of :class:`torch.nn.Conv2d`, but for ``device`` and ``dtype``.

    Shape:
        as of :class:`torch.nn.Conv2d`
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = 'zeros') -> None:
        super().__init__()
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                  padding_mode)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self._init_bias(bias)
        self.init_weights()

    def init_weights(self) -> None:
        """Kaiming-normal by fan-out, bias 0, as OpenMMLab does."""
        self._init_kernels()

    def forward(self, x: Tensor, norm: BatchNorm | None = None) -> Tensor:
        return self._convolve(x, self.weight, norm)

    def _convolve(self, x: Tensor, kernel: Tensor, norm: BatchNorm | None) -> Tensor:
        if isinstance(norm, Tensor):
            self._refuse_shared()
        padding = self.padding
        if self.padding_mode != 'zeros' or isinstance(padding, str):
            x, padding = self._pad(x)
        return conv2d(x, kernel, self.bias, self.stride, padding, self.dilation, self.groups, norm)


#: for the modules of mmcv that build a convolution
STATIC_CONV_CFG = dict(type=StaticConv2d)

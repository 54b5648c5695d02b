"""Decoupled dynamic filter (Zhou et al., CVPR 2021, https://arxiv.org/abs/2104.14107)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.geometry import check_input
from ..functional.involution import factored_involution2d, involution2d
from ..functional.sample_conv import sample_conv2d
from .conv_arguments import check_divisor, check_reduction
from .fully_connected import FullyConnected
from .involution import SizeKeepingConv
from .static_conv import StaticConv2d

torch.fx.wrap('check_input')
torch.fx.wrap('factored_involution2d')
torch.fx.wrap('involution2d')
torch.fx.wrap('sample_conv2d')

COMBINATIONS = ('mul', 'add')


class FilterNorm(nn.Module):
    """Kernels standardised over their elements (DDF, Eq. 3 and 4): (v − mean) / std, times a gain √2 / k.

    Args:
        channels (int): number of kernels.
        kernel_size (tuple[int, int]): their size.
        learned (bool): whether each element has a standard deviation that is learned, else the gain.

    Shape:
        input Tensor[batch, channels · k², …], output of the same shape
    """

    def __init__(self, channels: int, kernel_size: tuple[int, int], learned: bool) -> None:
        super().__init__()
        self.channels = channels
        self.gain = math.sqrt(2 / math.prod(kernel_size))
        self.std = nn.Parameter(torch.empty(channels * math.prod(kernel_size))) if learned else None
        self.init_weights()

    def init_weights(self) -> None:
        """Normal, times the gain."""
        if self.std is not None:
            nn.init.normal_(self.std, std=self.gain)

    def forward(self, kernels: Tensor) -> Tensor:
        kernels = kernels.unflatten(1, (self.channels, -1))
        deviations = kernels - kernels.mean(2, keepdim=True)
        std = torch.linalg.vector_norm(deviations, dim=2, keepdim=True) / math.sqrt(kernels.shape[2] - 1)
        kernels = (deviations / (std + 1e-10)).flatten(1, 2)
        return kernels * (self.gain if self.std is None else self.std)


@MODELS.register_module()
class DDFConv2d(SizeKeepingConv):
    r"""Convolution by a kernel for each position and each channel, which two branches predict (DDF, Eq. 1).

    .. math:: y_{bchw} = \sum_{ij} F_{bcij} \, S_{b h(c) ijhw} \, x_{bc,h+i,w+j}

    S, of each position, is a 1×1 convolution of the features, at the layer's stride; F, of each channel, two FCs of
    their averages. Both are standardised over the k² elements of a kernel. With ``combine='add'`` it is F + S. The
    parameter names are those of the released layer.

    Args:
        in_channels, out_channels (int): C, both the same; a multiple of ``heads``.
        kernel_size (int | tuple[int, int]): odd, with more than one element. Default: 3.
        stride, dilation, bias, device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is added to the result
            and is not in the paper.
        padding (int | tuple[int, int] | str, optional): dilation · (kernel_size − 1) / 2, which is the default.
        groups (int): 1.
        padding_mode (str): 'zeros', 'reflect', 'replicate' or 'circular'. Default: 'zeros'.
        heads (int): groups of channels with an S of their own. Default: 1.
        combine (str): 'mul' or 'add'. Default: 'mul'.
        reduction (float): F's branch has ⌊C · reduction⌋ channels inside, at least 1. In (0, 1]. Default: 0.2.

    Shape:
        input Tensor[batch, C, height, width], output Tensor[batch, C, ⌈height / stride⌉, ⌈width / stride⌉]

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> DDFConv2d(32, 32, 3, stride=2, heads=4)(torch.randn(2, 32, 15, 14)).shape
        torch.Size([2, 32, 8, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 3,
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] | None = None,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, heads: int = 1,
                 combine: str = 'mul', reduction: float = 0.2) -> None:
        super().__init__()
        self._init_size_keeping_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                          padding_mode)
        if self.kernel_size == (1, 1):
            raise ValueError('kernel_size must have more than one element, over which kernels are standardised, but is '
                             f'{kernel_size!r}')
        check_divisor('heads', heads, 'in_channels', in_channels)
        if combine not in COMBINATIONS:
            raise ValueError(f'combine must be one of {COMBINATIONS}, but is {combine!r}')
        check_reduction(reduction, '0.2')
        self.heads = heads
        self.combine = combine
        area, hidden = math.prod(self.kernel_size), max(int(in_channels * reduction), 1)
        self._init_bias(bias)
        self.spatial_branch = nn.Sequential(StaticConv2d(in_channels, heads * area, 1, self.stride),
                                            FilterNorm(heads, self.kernel_size, learned=False))
        self.channel_branch = nn.Sequential(nn.AdaptiveAvgPool2d(1), FullyConnected(in_channels, hidden), nn.ReLU(),
                                            FullyConnected(hidden, in_channels * area),
                                            FilterNorm(in_channels, self.kernel_size, learned=True))
        self.init_weights()
        self._place(device, dtype)

    def init_weights(self) -> None:
        """Kaiming-normal by fan-out, biases 0; the learned standard deviations as :class:`FilterNorm`."""
        for branch in (self.spatial_branch, self.channel_branch):
            for module in branch:
                if hasattr(module, 'init_weights'):
                    module.init_weights()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def compute_filters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """S and F of features.

        Args:
            x (Tensor[batch, C, height, width]): features.

        Returns:
            tuple[Tensor[batch, heads, kernel_height, kernel_width, out_height, out_width],
            Tensor[batch, C, kernel_height, kernel_width]]
        """
        spatial = self.spatial_branch(x).unflatten(1, (self.heads, *self.kernel_size))
        return spatial, self.channel_branch(x).unflatten(1, (self.in_channels, *self.kernel_size))

    def attention_modules(self) -> list[nn.Module]:
        """Both branches: all there is."""
        return [self.spatial_branch, self.channel_branch]

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        spatial, channel = self.compute_filters(x)
        x, padding = self._pad(x)
        window = dict(stride=self.stride, padding=padding, dilation=self.dilation)
        if self.combine == 'mul':
            y = factored_involution2d(x, spatial, channel, **window)
        else:
            y = involution2d(x, spatial, **window) + sample_conv2d(x, channel[:, :, None], groups=self.in_channels,
                                                                   **window)
        return y if self.bias is None else y + self.bias[:, None, None].to(y.dtype)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, heads={self.heads}, combine={self.combine!r}'

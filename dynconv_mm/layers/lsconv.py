"""Large-small convolution (LSNet, Wang et al., CVPR 2025, https://arxiv.org/abs/2503.23135)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS, build_norm_layer
from .conv_arguments import check_divisor, check_module_cfg
from .conv_norm_act import ConvNormAct
from .involution import PositionKernelConv2d, check_odd
from .static_conv import STATIC_CONV_CFG, StaticConv2d


@MODELS.register_module()
class LSConv2d(PositionKernelConv2d):
    r"""Features plus what small kernels aggregate that large ones predict (LSNet, Eq. 5 to 8).

    .. math:: y = x + \mathrm{BN}\Big(\sum_{ij} H_{b g(c) ij hw} \, x_{bc,h+i,w+j}\Big), \quad
        H = \mathrm{GN}(W_4 \, σ(W_3 \, (W_2 * σ(W_1 x))))

    W_1, W_3 and W_4 are 1×1 convolutions, W_2 a large depthwise one, those but the last with norm, W_4 with bias; σ is
    ReLU, and inside there are C/2 channels. GN normalises each group's kernels. Unlike :class:`Involution2d`'s, groups
    are interleaved: of G groups, channel c uses the kernels of g(c) = c mod G.

    Args:
        in_channels, out_channels (int): C, both the same; even, and a multiple of ``group_channels``.
        kernel_size (int | tuple[int, int]): of the small kernels, odd. Default: 3.
        stride (int): 1, as the features are added.
        padding (int | tuple[int, int] | str, optional): dilation · (kernel_size − 1) / 2, which is the default.
        dilation, device, dtype: as in :class:`torch.nn.Conv2d`.
        groups (int): 1.
        bias (bool): of the result, which is not in the paper. Default: True.
        padding_mode (str): of the aggregation: 'zeros', 'reflect', 'replicate' or 'circular'. Default: 'zeros'.
        group_channels (int): channels that share kernels, C / G. Default: 8.
        large_kernel_size (int | tuple[int, int]): of W_2, odd. Default: 7.
        norm_cfg (dict): of the norms but GN. Default: dict(type='BN').

    Shape:
        input and output Tensor[batch, C, height, width]

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> LSConv2d(32, 32)(torch.randn(2, 32, 15, 14)).shape
        torch.Size([2, 32, 15, 14])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 3,
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] | None = None,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, group_channels: int = 8,
                 large_kernel_size: int | tuple[int, int] = 7, norm_cfg: dict = dict(type='BN')) -> None:
        super().__init__()
        self._init_size_keeping_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                          padding_mode)
        if self.stride != (1, 1):
            raise ValueError(f'stride must be 1, as the features are added to the result, but is {stride!r}')
        if in_channels % 2:
            raise ValueError(f'in_channels must be even, as half of them are inside, but is {in_channels}')
        check_divisor('group_channels', group_channels, 'in_channels', in_channels)
        check_odd('large_kernel_size', large_kernel_size)
        check_module_cfg('norm_cfg', norm_cfg, "dict(type='BN')")
        self.group_channels = group_channels
        self._init_bias(bias)
        hidden, kernel_groups = in_channels // 2, in_channels // group_channels
        common = dict(conv_cfg=STATIC_CONV_CFG, norm_cfg=norm_cfg)
        self.conv1 = ConvNormAct(in_channels, hidden, 1, **common)
        large = large_kernel_size if isinstance(large_kernel_size, (tuple, list)) else (large_kernel_size, ) * 2
        self.conv2 = ConvNormAct(hidden, hidden, tuple(large), padding=tuple(size // 2 for size in large),
                                 groups=hidden, act_cfg=None, **common)
        self.conv3 = ConvNormAct(hidden, hidden, 1, **common)
        kernel_channels = self.kernel_size[0] * self.kernel_size[1] * kernel_groups
        self.conv4 = StaticConv2d(hidden, kernel_channels, 1)
        self.kernel_norm = nn.GroupNorm(kernel_groups, kernel_channels)
        self.norm = build_norm_layer(norm_cfg, in_channels)[1]
        self.init_weights()
        self._place(device, dtype)

    def compute_kernels(self, x: Tensor) -> Tensor:
        """The kernels of features, of C / group_channels groups."""
        kernels = self.kernel_norm(self.conv4(self.conv3(self.conv2(self.conv1(x)))))
        return kernels.unflatten(1, (self.in_channels // self.group_channels, *self.kernel_size))

    def aggregate(self, values: Tensor, kernels: Tensor, padding: tuple[int, int]) -> Tensor:
        """The normalised sums."""
        groups = self.in_channels // self.group_channels
        y = super().aggregate(_transposed(values, self.group_channels, groups), kernels, padding)
        return self.norm(_transposed(y, groups, self.group_channels))

    def attention_modules(self) -> list[nn.Module]:
        """The modules that predict the kernels."""
        return [self.conv1, self.conv2, self.conv3, self.conv4, self.kernel_norm]

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + x.to(y.dtype)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, group_channels={self.group_channels}'


def _transposed(x: Tensor, rows: int, columns: int) -> Tensor:
    """Channels, of which there are rows · columns, column by column."""
    batch, height, width = x.shape[0], x.shape[2], x.shape[3]
    x = x.reshape(batch, rows, columns, height, width).transpose(1, 2)
    return x.reshape(batch, rows * columns, height, width)

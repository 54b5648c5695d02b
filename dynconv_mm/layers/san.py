"""Pairwise self-attention (Zhao et al., CVPR 2020, https://arxiv.org/abs/2004.13621)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS, build_norm_layer
from ..functional.local_attention import neighbours, normalised_positions, pad_reflected
from .conv_arguments import check_divisor, check_module_cfg, check_reduction
from .involution import PositionKernelConv2d
from .static_conv import StaticConv2d

torch.fx.wrap('neighbours')
torch.fx.wrap('normalised_positions')
torch.fx.wrap('pad_reflected')


@MODELS.register_module()
class PairwiseSelfAttention2d(PositionKernelConv2d):
    r"""Values added up by weights that pairs of positions predict: SAN's pairwise self-attention by the differences of
    queries and keys, as in its released code (Exploring self-attention).

    .. math:: y_i = \sum_{j \in R(i)} \mathrm{softmax}_j(γ([q_i - k_j; p_i - p_j])) ⊙ v_j

    q, k, v are 1×1 convolutions of the features, p one of the positions in the map, in [-1, 1]. γ is norm, ReLU, 1×1
    convolution, norm, ReLU and 1×1 convolution; each of its outputs weighs ``group_channels`` neighbouring channels.
    The window R(i) is that of a convolution. The parameter names are those of the released module.

    Args:
        in_channels (int): channels of the features.
        out_channels (int): channels of the values; a multiple of ``group_channels``.
        kernel_size (int | tuple[int, int]): odd. Default: 7.
        stride, dilation, bias, device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is added to the result
            and is not in the paper.
        padding (int | tuple[int, int] | str, optional): dilation · (kernel_size − 1) / 2, which is the default.
        groups (int): 1.
        padding_mode (str): 'zeros', 'reflect', 'replicate' or 'circular', of keys, values and positions. A map smaller
            than its padding is reflected again and again. Default: 'reflect'.
        group_channels (int): channels that share weights. Default: 8.
        reduction (float): q and k have ⌊in_channels · reduction⌋ channels, in (0, 1]. Default: 1/16.
        norm_cfg (dict, optional): of γ. Default: dict(type='BN').

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, out_channels, ⌈height / stride⌉,
        ⌈width / stride⌉]

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> PairwiseSelfAttention2d(64, 16, 7, bias=False)(torch.randn(2, 64, 15, 14)).shape
        torch.Size([2, 16, 15, 14])
    """

    keeps_channels = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 7,
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] | None = None,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = 'reflect', device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None, group_channels: int = 8, reduction: float = 1 / 16,
                 norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        self._init_size_keeping_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                          padding_mode)
        check_divisor('group_channels', group_channels, 'out_channels', out_channels)
        check_reduction(reduction, '1/16')
        relation = int(in_channels * reduction)
        if relation < 1:
            raise ValueError(f'reduction must leave a channel of in_channels={in_channels}, but is {reduction!r}')
        check_module_cfg('norm_cfg', norm_cfg, "dict(type='BN')", optional=True)
        self.group_channels = group_channels
        self.reduction = reduction
        self._init_bias(bias)
        self.conv1 = StaticConv2d(in_channels, relation, 1, self.stride)
        self.conv2 = StaticConv2d(in_channels, relation, 1)
        self.conv3 = StaticConv2d(in_channels, out_channels, 1)
        self.conv_p = StaticConv2d(2, 2, 1)
        self.conv_w = nn.Sequential(
            _norm(norm_cfg, relation + 2), nn.ReLU(inplace=True),
            StaticConv2d(relation + 2, relation, 1, bias=False),
            _norm(norm_cfg, relation), nn.ReLU(inplace=True),
            StaticConv2d(relation, out_channels // group_channels, 1))
        self._place(device, dtype)

    def compute_kernels(self, x: Tensor) -> Tensor:
        """The weights of features, which add up to 1 over a window.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            Tensor[batch, out_channels / group_channels, kernel_height, kernel_width, out_height, out_width]
        """
        query, key = self.conv1(x), self.conv2(x)
        position = self.conv_p(normalised_positions(x)).expand(x.shape[0], -1, -1, -1)
        sampled = position[:, :, ::self.stride[0], ::self.stride[1]]
        padded, padding = self._pad(torch.cat([key, position.to(key.dtype)], 1))
        relation = torch.cat([query, sampled.to(query.dtype)], 1)[:, :, None] - neighbours(
            padded, self.kernel_size, stride=self.stride, padding=padding, dilation=self.dilation)
        weights = self.conv_w(relation.flatten(3)).softmax(2)
        return weights.unflatten(3, relation.shape[3:]).unflatten(2, self.kernel_size)

    def compute_values(self, x: Tensor) -> Tensor:
        """v, Tensor[batch, out_channels, height, width]."""
        return self.conv3(x)

    def attention_modules(self) -> list[nn.Module]:
        """All but the values."""
        return [self.conv1, self.conv2, self.conv_p, self.conv_w]

    def _pad(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if self.padding_mode != 'reflect':
            return super()._pad(x)
        return pad_reflected(x, tuple(d * (k - 1) // 2 for d, k in zip(self.dilation, self.kernel_size))), (0, 0)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, group_channels={self.group_channels}'


def _norm(norm_cfg: dict | None, channels: int) -> nn.Module:
    return nn.Identity() if norm_cfg is None else build_norm_layer(norm_cfg, channels)[1]

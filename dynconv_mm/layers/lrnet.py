"""Local relation (Hu et al., ICCV 2019, https://arxiv.org/abs/1904.11491)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.local_attention import neighbours, relative_positions
from .conv_arguments import check_divisor
from .involution import PositionKernelConv2d
from .static_conv import StaticConv2d

torch.fx.wrap('neighbours')
torch.fx.wrap('relative_positions')

SIMILARITIES = ('absolute', 'product')


class GeometryPrior(nn.Module):
    """What a relative position adds to the similarity: two 1×1 layers over its row and column, ReLU between them.

    Args:
        groups (int): outputs; half as many channels inside.
        kernel_size (tuple[int, int]): of the window.

    Shape:
        input any Tensor, for its type and device; output Tensor[1, groups, kernel_height · kernel_width, 1, 1]
    """

    def __init__(self, groups: int, kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        hidden = max(1, groups // 2)
        self.layers = nn.Sequential(StaticConv2d(2, hidden, 1), nn.ReLU(inplace=True), StaticConv2d(hidden, groups, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(relative_positions(self.kernel_size, x)).flatten(2)[..., None, None]


@MODELS.register_module()
class LocalRelation2d(PositionKernelConv2d):
    r"""Features added up by the similarity of a position to its neighbours (Local relation networks).

    .. math:: y_i = W \sum_{j \in R(i)} \mathrm{softmax}_j(Φ(q_i, k_j) + g(j - i)) \, x_j

    Each ``group_channels`` neighbouring channels share a scalar query and key, 1×1 convolutions of the features, and
    the weights. Φ is −\|q − k\| or their product, g the geometry prior (:class:`GeometryPrior`), W a 1×1 convolution.
    Beyond the map's edge are zeros, with keys of 0.

    Args:
        in_channels, out_channels (int): C, both the same; a multiple of ``group_channels``.
        kernel_size (int | tuple[int, int]): odd. Default: 7.
        stride, dilation, device, dtype: as in :class:`torch.nn.Conv2d`; only the query has the stride.
        padding (int | tuple[int, int] | str, optional): dilation · (kernel_size − 1) / 2, which is the default.
        groups (int): 1.
        bias (bool): of W; added to the result. Default: True.
        padding_mode (str): 'zeros', 'reflect', 'replicate' or 'circular'. Default: 'zeros'.
        group_channels (int): channels that share weights. Default: 8.
        similarity (str): 'absolute' or 'product'. Default: 'absolute'.

    Shape:
        input Tensor[batch, C, height, width], output Tensor[batch, C, ⌈height / stride⌉, ⌈width / stride⌉]

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> LocalRelation2d(32, 32, 7, stride=2, bias=False)(torch.randn(2, 32, 15, 14)).shape
        torch.Size([2, 32, 8, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 7,
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] | None = None,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, group_channels: int = 8,
                 similarity: str = 'absolute') -> None:
        super().__init__()
        self._init_size_keeping_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                          padding_mode)
        check_divisor('group_channels', group_channels, 'in_channels', in_channels)
        if similarity not in SIMILARITIES:
            raise ValueError(f'similarity must be one of {SIMILARITIES}, but is {similarity!r}')
        self.group_channels = group_channels
        self.similarity = similarity
        self._init_bias(bias)
        scalars = in_channels // group_channels
        self.query = StaticConv2d(in_channels, scalars, 1, self.stride)
        self.key = StaticConv2d(in_channels, scalars, 1)
        self.geometry_prior = GeometryPrior(scalars, self.kernel_size)
        self.proj = StaticConv2d(in_channels, out_channels, 1, bias=False)
        self._place(device, dtype)

    def compute_kernels(self, x: Tensor) -> Tensor:
        """The weights of features, which add up to 1 over a window.

        Args:
            x (Tensor[batch, C, height, width]): features.

        Returns:
            Tensor[batch, C / group_channels, kernel_height, kernel_width, out_height, out_width]
        """
        query, (key, padding) = self.query(x)[:, :, None], self._pad(self.key(x))
        key = neighbours(key, self.kernel_size, stride=self.stride, padding=padding, dilation=self.dilation)
        similarity = query * key if self.similarity == 'product' else -(query - key).abs()
        return (similarity + self.geometry_prior(x)).softmax(2).unflatten(2, self.kernel_size)

    def attention_modules(self) -> list[nn.Module]:
        """All but W."""
        return [self.query, self.key, self.geometry_prior]

    def aggregate(self, values: Tensor, kernels: Tensor, padding: tuple[int, int]) -> Tensor:
        """W of their sums."""
        return self.proj(super().aggregate(values, kernels, padding))

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, group_channels={self.group_channels}, similarity={self.similarity!r}'

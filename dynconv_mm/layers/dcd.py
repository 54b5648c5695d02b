"""Dynamic convolution decomposition (Li et al., ICLR 2021, https://arxiv.org/abs/2103.08756)."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.geometry import check_input
from ..functional.sample_conv import sample_conv2d
from .average_pool import AveragePool2d
from .conv_arguments import ConvArguments, check_bool, check_positive_int
from .dcd_base import DCDBase, StaticMatrix

torch.fx.wrap('check_input')
torch.fx.wrap('sample_conv2d')

FUSIONS = ('channel', 'joint', None)
MAP_NORM_TYPES = ('BN', 'BN2d', 'SyncBN', 'GN')


class Rule(NamedTuple):
    """How large a layer's dynamic parts are."""

    pool_size: int  # features are averaged to this many pixels squared
    latent_channels: int  # L
    min_hidden: int  # lower bound of s


def bottleneck_rule(in_channels: int, out_channels: int) -> Rule:
    """Of the released ResNets with bottleneck blocks."""
    return Rule(1, math.isqrt(in_channels), 1)


def basic_rule(in_channels: int, out_channels: int) -> Rule:
    """Of the released ResNets with basic blocks."""
    return Rule(2, math.isqrt(4 * in_channels), 4)


def mobilenet_rule(in_channels: int, out_channels: int) -> Rule:
    """Of the released MobileNetV2's pointwise convolutions; those that expand see four pixels."""
    pool_size, reduction = (2, 8) if in_channels < out_channels else (1, 2)
    features = in_channels * pool_size**2

    def latent_channels() -> int:
        return min(features // reduction, out_channels // reduction)

    while latent_channels()**2 > 2 * features:
        reduction *= 2
    return Rule(pool_size, max(latent_channels(), 4), 4)


def paper_rule(in_channels: int, out_channels: int) -> Rule:
    """L = ⌊C / 2^⌊log₂ √C⌋⌋ (3.2), with the input's channels for C, which Q compresses."""
    return Rule(1, max(in_channels >> max(in_channels.bit_length() - 1, 0) // 2, 1), 1)


VARIANTS: dict[str, Callable[[int, int], Rule]] = dict(
    bottleneck=bottleneck_rule, basic=basic_rule, mobilenet=mobilenet_rule, paper=paper_rule)


@MODELS.register_module()
class DCDConv2d(ConvArguments, DCDBase):
    r"""A static convolution with dynamic channel-wise attention, and a dynamic residual of low rank (DCD, Eq. 6).

    .. math:: W(x) = \Lambda(x) W_0 + P \Phi(x) Q^T

    The kernels W(x) are never built: :math:`y = \Lambda(x) (W_0 * x) + P (\Phi(x) (Q^T x))`, in which Φ works on L
    channels. With a kernel of more than one element the residual stands at its centre (4.3, channel fusion alone).
    With ``groups`` the static kernel is grouped, and the residual joins all channels.

    ``variant='paper'`` is Eq. 5 to 9 as they stand. The others are the released build, whose parameters the tables
    report: batch norms around Φ and a shortcut past it, :math:`\mathrm{BN}(\Phi u) + u` with
    :math:`u = \mathrm{BN}(Q^T x)`, a gated dynamic branch, and sizes by the network that the layer is for.

    The residual grows with the square of the features. An untrained stack of layers in eval mode, whose norms have no
    statistics yet, overflows to NaN, as the released code does: see ``configs/dcd/README.md``.

    Takes the arguments of :class:`torch.nn.Conv2d` in its order, then its own.

    Args:
        variant (str): 'bottleneck', 'basic' (blocks of the released ResNets), 'mobilenet' (pointwise convolutions
            of the released MobileNetV2) or 'paper'. Default: 'bottleneck'.
        squeeze_ratio (int): r, by which the first FC of the dynamic branch reduces. Default: 16.
        channel_attention (bool): whether there is Λ; else it is the identity (Eq. 5). Default: True.
        fusion (str, optional): what Φ fuses: 'channel', 'joint', channels and kernel elements (Eq. 9, paper build),
            or None, no residual. In a depthwise convolution of the paper build any but None fuses kernel elements
            (Eq. 8). Default: 'channel'.
        latent_multiplier (float): multiplies L, or L_k of Eq. 8 (Table 2). Default: 1.
        blocks (int): B, diagonal blocks of the residual (Eq. 7). Default: 1.
        norm_cfg (dict, optional): of the norms around Φ in the released build, one of :data:`MAP_NORM_TYPES` or
            None; the paper build has none. A batch norm that gets a single value a channel in training uses its
            running statistics in that step, and warns once. Default: dict(type='BN').

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, out_channels, out_height,
        out_width], the size as of :class:`torch.nn.Conv2d`; batch 0 gives an empty map.

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> layer = DCDConv2d(64, 32, 3, padding=1, bias=False, variant='basic')
        >>> layer(torch.randn(2, 64, 9, 9)).shape
        torch.Size([2, 32, 9, 9])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None,
                 variant: str = 'bottleneck', squeeze_ratio: int = 16, channel_attention: bool = True,
                 fusion: str | None = 'channel', latent_multiplier: float = 1., blocks: int = 1,
                 norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                  padding_mode)
        if not isinstance(variant, str) or variant not in VARIANTS:
            raise ValueError(f'variant must be one of {tuple(VARIANTS)}, but is {variant!r}')
        for name, value in (('squeeze_ratio', squeeze_ratio), ('blocks', blocks)):
            check_positive_int(name, value)
        check_bool('channel_attention', channel_attention)
        if isinstance(latent_multiplier, bool) or not isinstance(latent_multiplier, (int, float)) \
                or not 0 < latent_multiplier < math.inf:
            raise ValueError(f'latent_multiplier must be a positive number, but is {latent_multiplier!r}')
        self.variant = variant
        self.squeeze_ratio = squeeze_ratio
        self.latent_multiplier = latent_multiplier
        self.fusion = self._check_fusion(fusion, blocks)
        if norm_cfg is not None and (not isinstance(norm_cfg, dict) or norm_cfg.get('type') not in MAP_NORM_TYPES):
            raise ValueError(f'norm_cfg must be None or a dict whose type is one of {MAP_NORM_TYPES}, but is '
                             f'{norm_cfg!r}')

        released = variant != 'paper'
        kernel_height, kernel_width = self.kernel_size
        taps = kernel_height * kernel_width // 2 if self.fusion in ('joint', 'kernel') else 1  # L_k
        rule = VARIANTS[variant](in_channels // taps, out_channels)
        self.pool = AveragePool2d(rule.pool_size)
        pooled_features = in_channels * rule.pool_size**2
        latent_channels = self._multiplied(rule.latent_channels)
        widest = max(pooled_features, latent_channels**2) if released else in_channels
        self.hidden_channels = max(widest // squeeze_ratio, rule.min_hidden)
        if blocks > 1:
            latent_channels = self._multiplied(
                VARIANTS[variant](in_channels // taps // blocks, out_channels // blocks).latent_channels)
        if self.fusion is None:
            latent_channels = 0
        elif self.fusion == 'kernel':
            latent_channels, taps = self._multiplied(taps), 1

        self.conv = StaticMatrix(out_channels, in_channels // groups, kernel_height, kernel_width)
        self._prefix = 'conv_' if variant == 'mobilenet' else ''  # the released names
        if self.fusion in ('channel', 'joint'):
            self.add_module(f'{self._prefix}q',
                            StaticMatrix(blocks * latent_channels, in_channels // blocks, 1, 1))
        if self.fusion in ('joint', 'kernel'):
            self.r = StaticMatrix(latent_channels if self.fusion == 'kernel' else taps, 1, kernel_height,
                                  kernel_width)
        if self.fusion is not None:
            self.add_module(f'{self._prefix}p', StaticMatrix(out_channels, latent_channels, 1, 1))
        self._init_bias(bias)
        self._init_fusion(pooled_features, self.hidden_channels, out_channels, latent_channels, taps=taps,
                          blocks=blocks, channel_attention=channel_attention,
                          norm_cfg=norm_cfg if released else None, gate=released)
        self._place(device, dtype)

    def _check_fusion(self, fusion: str | None, blocks: int) -> str | None:
        """What Φ fuses in this layer, which may be a depthwise one: 'channel', 'joint', 'kernel' or None."""
        if not isinstance(fusion, (str, type(None))) or fusion not in FUSIONS:
            raise ValueError(f'fusion must be one of {FUSIONS}, but is {fusion!r}')
        for name in ('in_channels', 'out_channels'):
            if getattr(self, name) % blocks:
                raise ValueError(f'{name} must be divisible by blocks, but {name}={getattr(self, name)} and '
                                 f'blocks={blocks}')
        if fusion is None:
            return None
        paper = self.variant == 'paper'
        if paper and self.in_channels == self.out_channels == self.groups > 1:
            if blocks > 1:
                raise ValueError(f'blocks must be 1 in a depthwise convolution, whose residual joins no channels, '
                                 f'but is {blocks}')
            fusion = 'kernel'
        if fusion == 'joint' and not paper:
            raise ValueError(f"fusion='joint' needs variant='paper', but variant is {self.variant!r}")
        kernel_height, kernel_width = self.kernel_size
        if fusion in ('joint', 'kernel') and kernel_height * kernel_width < 2:
            raise ValueError(f'kernel_size must have more than one element for Φ to fuse kernel elements, but is '
                             f'{self.kernel_size}; use fusion=None in a depthwise convolution, or '
                             "fusion='channel' in others")
        if fusion == 'channel' and not (kernel_height % 2 and kernel_width % 2):
            raise ValueError(f'kernel_size must be odd, the residual stands at its centre, but is '
                             f"{self.kernel_size}; use variant='paper' with fusion='joint' or fusion=None")
        return fusion

    def _multiplied(self, channels: int) -> int:
        return max(int(channels * self.latent_multiplier), 1)

    def init_weights(self) -> None:
        """Initialise anew: kernels Kaiming-normal by fan-out, FCs as torch does, bias 0, norms 1 and 0."""
        self._init_matrices()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def compute_coefficients(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Λ(x) and Φ(x) of features.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            tuple[Tensor | None, Tensor | None]: the diagonal of Λ, [batch, out_channels], and Φ,
            [batch, blocks, L, L] or [batch, 1, L, L·L_k] in Eq. 9; None for what the layer does not have.
        """
        return self._coefficients(self.pool(x).flatten(1))

    def attention_modules(self) -> list[nn.Module]:
        """The dynamic branch and the residual: all modules but W₀."""
        return [module for module in self.children() if module is not self.conv]

    def static_matrix(self) -> StaticMatrix:
        return self.conv

    def expansion(self) -> StaticMatrix | None:
        return getattr(self, f'{self._prefix}p', None)

    def _kernel_holders(self) -> list[nn.Module]:
        return [self.conv] if self.fusion is None else [self.conv, self.expansion()]

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        scale, phi = self.compute_coefficients(x)
        x, padding = self._pad(x)
        if self.fusion == 'kernel':
            return self._forward_depthwise(x, padding, scale, phi)
        static = self.conv(x, self.bias if self.fc is None else None, stride=self.stride, padding=padding,
                           dilation=self.dilation, groups=self.groups)
        if phi is None:
            return static if scale is None else self._add_bias(static * scale[:, :, None, None])
        latent = self._squeeze_jointly(x, padding) if self.fusion == 'joint' else self._squeeze(x, padding)
        residual = self.expansion()(self._fuse(latent, phi), self.bias, groups=self.blocks)
        if scale is None:
            return residual + static
        return torch.addcmul(residual, scale[:, :, None, None], static)  # one pass over the maps for both

    def _add_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def _squeeze(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        """Qᵀx at the centres of the kernel's windows."""
        offsets = [d * (k - 1) // 2 - p for d, k, p in zip(self.dilation, self.kernel_size, padding)]
        top, left = (max(offset, 0) for offset in offsets)
        if top or left:
            x = x[:, :, top:x.shape[2] - top, left:x.shape[3] - left]
        q = getattr(self, f'{self._prefix}q')
        return q(x, stride=self.stride, padding=[max(-offset, 0) for offset in offsets], groups=self.blocks)

    def _squeeze_jointly(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        """Qᵀx over the windows, in L_k latent kernel elements: first the channels, then the elements."""
        latent = self.q(x, groups=self.blocks)
        elements = self.r(latent.flatten(0, 1)[:, None], stride=self.stride, padding=padding, dilation=self.dilation)
        return elements.reshape(latent.shape[0], latent.shape[1] * elements.shape[1], elements.shape[2],
                                elements.shape[3])

    def _forward_depthwise(self, x: Tensor, padding: tuple[int, int], scale: Tensor | None, phi: Tensor) -> Tensor:
        """Eq. 8: the kernels of all samples, which are small, and one convolution by them."""
        static, p, r = (matrix().flatten(1) for matrix in (self.conv, self.p, self.r))
        kernels = static if scale is None else scale[:, :, None] * static
        kernels = (kernels + p @ (phi[:, 0] @ r)).unflatten(2, (1, *self.kernel_size))
        return self._add_bias(sample_conv2d(x, kernels, stride=self.stride, padding=padding, dilation=self.dilation,
                                            groups=self.groups))

    def extra_repr(self) -> str:
        parts = [super().extra_repr(), f'variant={self.variant!r}']
        if self.fc_scale is None:
            parts.append('channel_attention=False')
        if self.fusion != 'channel':
            parts.append(f'fusion={self.fusion!r}')
        if self.blocks > 1:
            parts.append(f'blocks={self.blocks}')
        return ', '.join(parts)

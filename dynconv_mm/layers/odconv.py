"""Omni-dimensional dynamic convolution (Li, Zhou, Yao: ICLR 2022, https://openreview.net/forum?id=DmpCfq6Mg39)."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.attention import Head, attention
from .attention_norm import build_attention_norm
from .average_pool import PoolsFeatures
from .conv_arguments import check_positive_int, check_reduction
from .fully_connected import FullyConnected
from .mixture_conv import MixtureConv2d
from .temperature import TemperatureMixin

ATTENTIONS = ('spatial', 'channel', 'filter', 'kernel')


class ODConvAttention(nn.Module, PoolsFeatures):
    """The multi-head attention π_i(x) of ODConv (Fig. 1): pool → FC → norm → ReLU → one FC an attention.

    Under autocast it is computed in its parameters' precision.

    Args:
        in_channels (int): channels of the features.
        hidden_channels (int): a, the width behind the first FC.
        head_channels (dict[str, int]): logits of each head; a key is one of :data:`ATTENTIONS`.
        softmax (Sequence[str]): the attentions whose activation is softmax; that of the others is sigmoid.
        kernel_num (int): of how many kernels each has spatial, channel and filter attentions of its own. Default: 1.
        pool_size (int): the features are averaged to this many pixels squared. Default: 1.
        norm_cfg (dict, optional): normalisation behind the first FC.
    """

    def __init__(self, in_channels: int, hidden_channels: int, head_channels: dict[str, int], softmax: Sequence[str],
                 kernel_num: int = 1, pool_size: int = 1, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.pool_size = pool_size
        self.head_channels = head_channels
        self.fc = FullyConnected(in_channels, hidden_channels, pool_size, bias=False)
        self.bn = build_attention_norm(norm_cfg, hidden_channels)
        for head, channels in head_channels.items():
            self.add_module(f'{head}_fc', FullyConnected(hidden_channels, channels))
        # of each head: its module, whether softmax is its activation, for how many kernels it makes attentions
        self._heads = {head: (f'{head}_fc', head in softmax, 1 if head == 'kernel' else kernel_num)
                       for head in head_channels}

    def init_weights(self) -> None:
        """Initialise all FCs anew."""
        for module in self.children():
            if isinstance(module, FullyConnected):
                module.init_weights()

    def forward(self, x: Tensor, temperature: Tensor) -> dict[str, Tensor]:
        """The attentions of features, see :meth:`ODConv2d.compute_attentions`.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.
            temperature (Tensor[]): τ.
        """
        modules = self._modules
        heads = {name: Head(modules[fc], softmax, copies) for name, (fc, softmax, copies) in self._heads.items()}
        return attention(x, self.in_channels, modules['fc'], modules['bn'], heads, temperature, self.pool_size)


@MODELS.register_module()
class ODConv2d(MixtureConv2d, TemperatureMixin):
    r"""Convolution whose kernels are attended to along all four of their dimensions (ODConv, Eq. 2).

    .. math:: y = \Big(\sum_i \alpha_{wi} \odot \alpha_{fi} \odot \alpha_{ci} \odot \alpha_{si} \odot W_i\Big)
        * x

    The attentions are computed from the averaged input; each head is divided by the temperature before
    its activation: sigmoid, and softmax over the n kernels for α_w. As in the reference, α_s is left out
    for 1×1 kernels, α_w for n = 1 and α_f for depthwise convolutions; a layer left with no attention at all
    is an ordinary convolution by the sum of its kernels.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is static and not scaled.
        kernel_num (int): n, the number of kernels. Default: 4.
        reduction (float): r; the attention's hidden width is max(⌊in_channels·r⌋, min_channels). In (0, 1].
            Default: 1/16 (Table 5).
        min_channels (int): least hidden width. Default: 16.
        attentions (Sequence[str]): which of 'spatial', 'channel', 'filter', 'kernel' to compute (Table 7).
            One that is left out counts as 1. Default: all four.
        spatial_activation (str): 'sigmoid' or 'softmax', the activation of α_s (Table 11).
            Default: 'sigmoid'.
        share_attention (bool): whether α_s, α_c and α_f are shared by the n kernels or each kernel has its
            own (Table 12). Default: True.
        spatial_pool_size (int): the features are averaged to this many pixels squared before the first FC
            (Table 16). Default: 1.
        temperature (float): initial temperature τ. Default: 1.
        norm_cfg (dict, optional): norm between the first FC and its ReLU: 'BN', 'SyncBN', 'GN', 'LN' or None.
            A batch norm that gets a single value a channel in training (batch 1) uses its running statistics
            in that step, and warns once. Default: dict(type='BN').
        plan (str): how the mixture is executed, see :data:`dynconv_mm.functional.PLANS`. Default: 'auto'.

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, out_channels, out_height,
        out_width], the size as of :class:`torch.nn.Conv2d`; batch 0 gives an empty map.

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> layer = ODConv2d(8, 6, 3, padding=1, kernel_num=2, bias=False)
        >>> layer(torch.randn(2, 8, 9, 9)).shape
        torch.Size([2, 6, 9, 9])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, kernel_num: int = 4,
                 reduction: float = 1 / 16, min_channels: int = 16, attentions: Sequence[str] = ATTENTIONS,
                 spatial_activation: str = 'sigmoid', share_attention: bool = True, spatial_pool_size: int = 1,
                 temperature: float = 1., norm_cfg: dict | None = dict(type='BN'), plan: str = 'auto') -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         padding_mode, kernel_num, plan)
        for name, value in (('min_channels', min_channels), ('spatial_pool_size', spatial_pool_size)):
            check_positive_int(name, value)
        check_reduction(reduction, '1/16')
        if isinstance(attentions, str) or not isinstance(attentions, Sequence) \
                or any(name not in ATTENTIONS for name in attentions) or len(set(attentions)) < len(attentions):
            raise ValueError(f'attentions must be a sequence of different names out of {ATTENTIONS}, but is '
                             f'{attentions!r}')
        if spatial_activation not in ('sigmoid', 'softmax'):
            raise ValueError(f"spatial_activation must be 'sigmoid' or 'softmax', but is "
                             f'{spatial_activation!r}')
        self._init_temperature(temperature)
        self.spatial_activation = spatial_activation
        self.share_attention = share_attention
        head_channels = self._head_channels(attentions)
        hidden_channels = max(int(in_channels * reduction), min_channels)
        softmax = ('kernel', 'spatial') if spatial_activation == 'softmax' else ('kernel', )
        self.attention = ODConvAttention(in_channels, hidden_channels, head_channels, softmax,
                                         1 if share_attention else kernel_num, spatial_pool_size,
                                         norm_cfg) if head_channels else None
        self.init_weights()
        self._place(device, dtype)

    def _head_channels(self, attentions: Sequence[str]) -> dict[str, int]:
        """Logits of each head, without the heads that the reference leaves out."""
        copies = 1 if self.share_attention else self.kernel_num
        kernel_area = self.kernel_size[0] * self.kernel_size[1]
        depthwise = self.in_channels == self.out_channels == self.groups
        head_channels = dict(channel=copies * self.in_channels,
                             filter=0 if depthwise else copies * self.out_channels,
                             spatial=0 if kernel_area == 1 else copies * kernel_area,
                             kernel=0 if self.kernel_num == 1 else self.kernel_num)
        return {head: channels for head, channels in head_channels.items() if channels and head in attentions}

    def init_weights(self) -> None:
        """Initialise as the reference: every kernel and FC Kaiming-normal by fan-out, biases 0."""
        super().init_weights()
        if self.attention is not None:
            self.attention.init_weights()

    def compute_attentions(self, x: Tensor) -> dict[str, Tensor]:
        """The attentions of features.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            dict[str, Tensor]: by name, those that the layer has. 'kernel' is [batch, n]; 'spatial',
            'channel' and 'filter' are [batch, length], or [batch, n, length] with
            ``share_attention=False``, of length kernel_height·kernel_width, in_channels and out_channels.
        """
        return {} if self.attention is None else self.attention(x, self.temperature)

    def attention_modules(self) -> list[nn.Module]:
        return [] if self.attention is None else [self.attention]

    def neutralize_attention(self) -> float:
        """All logits 0, see :meth:`MixtureConv2d.neutralize_attention`."""
        heads = [] if self.attention is None else list(self.attention.head_channels)
        for head in heads:
            for parameter in self.attention.get_submodule(f'{head}_fc').parameters():
                nn.init.zeros_(parameter)
        total = 1. if 'kernel' in heads else float(self.kernel_num)
        for head in heads:
            if head == 'spatial' and self.spatial_activation == 'softmax':
                total /= self.kernel_size[0] * self.kernel_size[1]
            elif head != 'kernel':
                total /= 2  # sigmoid(0)
        return total

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        if not self.share_attention:
            parts.append('share_attention=False')
        if self.spatial_activation != 'sigmoid':
            parts.append(f'spatial_activation={self.spatial_activation!r}')
        return ', '.join(parts)

"""Omni-dimensional dynamic convolution (Li, Zhou, Yao: ICLR 2022, https://openreview.net/forum?id=DmpCfq6Mg39)."""
from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional.autocast import autocast_dtype
from ..functional.fused import Attention, attended_conv2d, fused_attention
from ..functional.plans import plan_for_all
from ..functional.pooling import adaptive_avg_pool2d
from ..functional.tracing import is_traced
from .attention_norm import build_attention_norm, normalize_hidden
from .conv_arguments import check_positive_int, check_reduction
from .mixture_conv import MixtureConv2d
from .norm_folding import has_hooks, is_constant, norm_tensors
from .pointwise_fc import PointwiseFC
from .temperature import TemperatureMixin

ATTENTIONS = ('spatial', 'channel', 'filter', 'kernel')


class AttentionHeads(PointwiseFC):
    """Fully connected layers over the same hidden vector, as one matrix product.

    Args:
        hidden_channels (int): length of the hidden vector.
        head_channels (dict[str, int]): logits of each head.
    """

    def __init__(self, hidden_channels: int, head_channels: dict[str, int]) -> None:
        self.head_channels = head_channels
        super().__init__(hidden_channels, sum(head_channels.values()))

    def init_weights(self) -> None:
        """Every head by its own fan-out."""
        for weight in self.weight.split(list(self.head_channels.values())):
            nn.init.kaiming_normal_(weight, mode='fan_out', nonlinearity='relu')
        nn.init.zeros_(self.bias)


class ODConvAttention(nn.Module):
    """The multi-head attention π_i(x) of ODConv (Fig. 1): pool → FC → norm → ReLU → one head an attention.

    In a state dict the heads are layers of their own, ``channel_fc``, ``filter_fc``, ``spatial_fc`` and
    ``kernel_fc``, as in the reference. Under autocast it is computed in its parameters' precision.

    Args:
        in_channels (int): channels of the features.
        hidden_channels (int): a, the width behind the first FC.
        head_channels (dict[str, int]): logits of each head; a key is one of :data:`ATTENTIONS`.
        pool_size (int): the features are averaged to this many pixels squared.
        norm_cfg (dict, optional): normalisation behind the first FC.
    """

    def __init__(self, in_channels: int, hidden_channels: int, head_channels: dict[str, int],
                 pool_size: int = 1, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.pool_size = pool_size
        self.head_channels = head_channels
        self.starts = dict(zip(head_channels, itertools.accumulate(head_channels.values(), initial=0)))
        self.fc = PointwiseFC(in_channels, hidden_channels, pool_size, bias=False)
        self.bn = build_attention_norm(norm_cfg, hidden_channels)
        self.heads = AttentionHeads(hidden_channels, head_channels)
        self._register_state_dict_hook(_separate_heads)

    def init_weights(self) -> None:
        """Initialise all FCs anew."""
        self.fc.init_weights()
        self.heads.init_weights()

    def forward(self, x: Tensor) -> Tensor:
        """The logits of all heads, one behind the other.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            Tensor[batch, sum of head_channels]
        """
        if autocast_dtype(x) is None:
            return self._logits(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._logits(x)

    def parts(self, temperature: Tensor) -> Attention | None:
        """What it computes with, if that can be done as one operation.

        Args:
            temperature (Tensor[]): τ.
        """
        fc, bn, heads = self.fc, self.bn, self.heads
        if self.pool_size > 1 or not is_constant(bn) or has_hooks(self) or has_hooks(fc) or has_hooks(bn) \
                or has_hooks(heads):
            return None
        return Attention(fc.weight, norm_tensors(bn), heads.weight, heads.bias, temperature)

    def _logits(self, x: Tensor) -> Tensor:
        dtype = self.fc.weight.dtype
        if self.pool_size == 1:
            pooled = x.mean((2, 3), dtype=dtype)
        else:
            pooled = adaptive_avg_pool2d(x, self.pool_size).to(dtype)
        return self.heads(F.relu(normalize_hidden(self.bn, self.fc(pooled))))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                              error_msgs) -> None:
        for part, own in self.heads.named_parameters():
            names = [f'{prefix}{head}_fc.{part}' for head in self.head_channels]
            found = {name: state_dict.pop(name) for name in names if name in state_dict}
            shapes = {name: head.shape for name, head in zip(names, own.split(list(self.head_channels.values())))}
            misfits = [f'size mismatch for {name}: copying a param with shape {value.shape} from checkpoint, the shape '
                       f'in current model is {shapes[name]}.' for name, value in found.items()
                       if value.shape != shapes[name]]
            missing_keys += [name for name in names if name not in found]
            error_msgs += misfits
            whole = len(found) == len(names) and not misfits
            state_dict[f'{prefix}heads.{part}'] = torch.cat([found[name] for name in names]) if whole else own.detach()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                                      error_msgs)


def _separate_heads(attention: ODConvAttention, state_dict: dict[str, Tensor], prefix: str,
                    local_metadata: dict) -> None:
    """The heads of a state dict as the layers that they are in the reference."""
    sizes = list(attention.head_channels.values())
    parts = {part: state_dict.pop(f'{prefix}heads.{part}').split(sizes) for part in ('weight', 'bias')}
    for index, head in enumerate(attention.head_channels):
        for part, values in parts.items():
            state_dict[f'{prefix}{head}_fc.{part}'] = values[index]


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

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1,
                 padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1,
                 groups: int = 1,
                 bias: bool = True,
                 padding_mode: str = 'zeros',
                 device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None,
                 kernel_num: int = 4,
                 reduction: float = 1 / 16,
                 min_channels: int = 16,
                 attentions: Sequence[str] = ATTENTIONS,
                 spatial_activation: str = 'sigmoid',
                 share_attention: bool = True,
                 spatial_pool_size: int = 1,
                 temperature: float = 1.,
                 norm_cfg: dict | None = dict(type='BN'),
                 plan: str = 'auto') -> None:
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
        self.attention = ODConvAttention(in_channels, hidden_channels, head_channels, spatial_pool_size,
                                         norm_cfg) if head_channels else None
        self.init_weights()
        self.to(device=device, dtype=dtype)

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

    def forward(self, x: Tensor) -> Tensor:
        y = self._convolve_one(x, None)
        return super().forward(x) if y is None else y

    def forward_norm(self, x: Tensor, norm: nn.Module) -> Tensor:
        """As of :class:`MixtureConv2d`."""
        y = self._convolve_one(x, norm)
        return super().forward_norm(x, norm) if y is None else y

    def _convolve_one(self, x: Tensor, norm: nn.Module | None) -> Tensor | None:
        """The convolution of one sample, and a norm in eval mode, by a kernel made by one operation; None where that
        does not serve."""
        if torch.is_grad_enabled() or is_traced() or x.shape[0] != 1 or autocast_dtype(x) is not None:
            return None
        if self.attention is None or not self.share_attention or self.spatial_activation != 'sigmoid':
            return None
        if self._attention_hooks or plan_for_all(self.plan) != 'auto' \
                or getattr(self.compute_attentions, '__func__', None) is not ODConv2d.compute_attentions:
            return None  # somebody asks for another execution, or for the attentions
        parts = self.attention.parts(self.temperature)
        if parts is None:
            return None
        padded, padding = self._pad(x)
        if padded is not x:  # its mean is another
            return None
        return attended_conv2d(x, parts, self.attention.starts, self.weight, self.bias,
                               None if norm is None else norm_tensors(norm), self.stride, padding, self.dilation,
                               self.groups)

    def compute_attentions(self, x: Tensor) -> dict[str, Tensor]:
        """The attentions of features.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            dict[str, Tensor]: by name, those that the layer has. 'kernel' is [batch, n]; 'spatial',
            'channel' and 'filter' are [batch, length], or [batch, n, length] with
            ``share_attention=False``, of length kernel_height·kernel_width, in_channels and out_channels.
        """
        if self.attention is None:
            return {}
        heads = self.attention.head_channels
        sizes = list(heads.values())
        kernels = self.kernel_num if 'kernel' in heads else 0  # the last head
        parts = self.attention.parts(self.temperature) if self.spatial_activation == 'sigmoid' else None
        fused = None if parts is None else fused_attention(x, parts, kernels)
        if fused is None:
            logits = self.attention(x) / self.temperature
            attentions = dict(zip(heads, logits.sigmoid().split(sizes, 1)))
            if kernels:
                attentions['kernel'] = logits[:, -kernels:].softmax(1)
        else:
            attentions = dict(zip(heads, fused.split(sizes, 1)))
        if not self.share_attention:
            for head in attentions.keys() - {'kernel'}:
                attentions[head] = attentions[head].unflatten(1, (self.kernel_num, -1))
        if self.spatial_activation == 'softmax' and 'spatial' in attentions:
            spatial = logits.split(sizes, 1)[list(attentions).index('spatial')]
            attentions['spatial'] = spatial.view_as(attentions['spatial']).softmax(-1)
        return attentions

    def attention_modules(self) -> list[nn.Module]:
        return [] if self.attention is None else [self.attention]

    def neutralize_attention(self) -> float:
        """All logits 0, see :meth:`MixtureConv2d.neutralize_attention`."""
        heads = [] if self.attention is None else list(self.attention.head_channels)
        if heads:
            nn.init.zeros_(self.attention.heads.weight)
            nn.init.zeros_(self.attention.heads.bias)
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

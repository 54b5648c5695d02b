"""Context-gated convolution (Lin et al., ECCV 2020, https://arxiv.org/abs/1910.05577)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.attention import normalize_hidden
from .attention_norm import build_attention_norm
from .average_pool import AveragePool2d
from .conv_arguments import check_positive_int
from .dcd_base import StaticMatrix
from .sample_kernel import SampleKernelConv2d

NORM_TYPES = ('BN', 'BN1d', 'SyncBN', 'GN')  # that take a vector for each channel


@MODELS.register_module()
class CGConv2d(SampleKernelConv2d):
    r"""Convolution whose kernel is gated, element by element, by the context of the sample (Context-Gated Convolution).

    .. math:: y = (\mathrm{sigmoid}(G_{in} \oplus G_{out}) \odot W) * x

    The features are averaged to the size of the kernel, k², and an FC makes d = ⌊k²/2⌋ + 1 numbers of those of a
    channel. Of these come, by norm, ReLU and an FC, k² for each input channel; and, by norm, ReLU, an FC that joins the
    input channels, group by group, to output channels, norm, ReLU and an FC, k² for each output channel. The gate of a
    kernel element is the sigmoid of the sum of both. With ``groups`` an output channel meets the input channels of its
    own group.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is not gated. The authors gate kernels of more
            than one element.
        group_channels (int): input channels that the FC between channels joins, at least; there are as many groups of
            these as divide the channels on either side. Default: 16.
        norm_cfg (dict, optional): of the norms inside, one of :data:`NORM_TYPES`, or None. Default: dict(type='BN').

    Shape:
        input Tensor[batch, in_channels, height, width], of any size (the released code takes squares alone), output
        Tensor[batch, out_channels, out_height, out_width], the size as of :class:`torch.nn.Conv2d`; batch 0 gives an
        empty map.

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> CGConv2d(32, 48, 3, padding=1)(torch.randn(2, 32, 9, 7)).shape
        torch.Size([2, 48, 9, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, group_channels: int = 16,
                 norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                  padding_mode)
        check_positive_int('group_channels', group_channels)
        if norm_cfg is not None and (not isinstance(norm_cfg, dict) or norm_cfg.get('type') not in NORM_TYPES):
            raise ValueError(f'norm_cfg must be None or a dict whose type is one of {NORM_TYPES}, but is {norm_cfg!r}')
        area = math.prod(self.kernel_size)
        hidden = area // 2 + 1
        self.group_channels = group_channels
        self.joined_groups = math.gcd(max(in_channels // group_channels, 1), in_channels, out_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self._init_bias(bias)
        self.pool = AveragePool2d(self.kernel_size)
        self.ce = StaticMatrix(hidden, area)
        self.ce_bn = build_attention_norm(norm_cfg, in_channels)
        self.gd = StaticMatrix(area, hidden)
        self.ci_bn2 = build_attention_norm(norm_cfg, in_channels)
        self.ci = StaticMatrix(out_channels // self.joined_groups, in_channels // self.joined_groups)
        self.ci_bn = build_attention_norm(norm_cfg, out_channels)
        self.gd2 = StaticMatrix(area, hidden)
        self.init_weights()
        self._place(device, dtype)

    def init_weights(self) -> None:
        """The kernel Kaiming-normal by fan-out, the FCs as torch initialises them, bias 0."""
        self._init_kernels()
        for matrix in (self.ce, self.gd, self.ci, self.gd2):
            matrix.init_weights()

    def compute_gates(self, x: Tensor) -> Tensor:
        """The factors of the kernel's elements.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]
        """
        context = self.ce(self.pool(x).flatten(2))
        inputs = self.gd(normalize_hidden(self.ce_bn, context).relu())
        joined = normalize_hidden(self.ci_bn2, context).relu().unflatten(1, (self.joined_groups, -1)).transpose(2, 3)
        joined = self.ci(joined).transpose(2, 3).flatten(1, 2)
        outputs = self.gd2(normalize_hidden(self.ci_bn, joined).relu())
        inputs, outputs = (part.unflatten(1, (self.groups, -1)) for part in (inputs, outputs))
        gates = (inputs[:, :, None] + outputs[:, :, :, None]).sigmoid()
        return gates.flatten(1, 2).unflatten(3, self.kernel_size)

    def compute_kernels(self, x: Tensor) -> Tensor:
        return self.compute_gates(x) * self.weight

    def attention_modules(self) -> list[nn.Module]:
        """All that computes the gates."""
        return [self.ce, self.ce_bn, self.gd, self.ci_bn2, self.ci, self.ci_bn, self.gd2]

    def neutralize_attention(self) -> float:
        """Let the gates be 1/2 for every input, which is returned, and yet learn."""
        nn.init.zeros_(self.gd.weight)
        nn.init.zeros_(self.gd2.weight)
        return 1 / 2

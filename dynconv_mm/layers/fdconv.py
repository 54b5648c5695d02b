"""Frequency dynamic convolution (Chen et al., CVPR 2025, https://arxiv.org/abs/2503.18783)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..compat.openmmlab import MODELS
from ..functional.attention import normalize_hidden
from ..functional.conv import conv2d
from ..functional.frequency import BANDS, coefficient_groups, frequency_bands, frequency_kernels
from ..functional.geometry import check_input
from ..functional.involution import accumulation_dtype
from .attention_hooks import AttentionHooks
from .attention_norm import build_attention_norm
from .conv_arguments import check_positive_int, check_reduction
from .fully_connected import FullyConnected
from .sample_kernel import SampleKernelConv2d
from .static_conv import StaticConv2d

torch.fx.wrap('check_input')
torch.fx.wrap('conv2d')
torch.fx.wrap('frequency_bands')
torch.fx.wrap('frequency_kernels')

KERNEL_SIZES = ((1, 1), (3, 3))


class StarReLU(nn.Module):
    """s · relu(x)² + b, with learned numbers s, which is 1 at first, and b, which is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def init_weights(self) -> None:
        """s is 1, b 0."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x).square() + self.bias


class FDConvAttention(nn.Module):
    """The global attentions of averages: FC → norm → StarReLU → one FC an attention → sigmoid.

    Args:
        in_channels (int): channels of the averages.
        hidden_channels (int): width behind the first FC.
        head_channels (dict[str, int]): length of each attention, by its name.
        norm_cfg (dict, optional): normalisation behind the first FC.

    Shape:
        input Tensor[batch, in_channels], output dict of Tensor[batch, length]
    """

    def __init__(self, in_channels: int, hidden_channels: int, head_channels: dict[str, int],
                 norm_cfg: dict | None) -> None:
        super().__init__()
        self.fc = FullyConnected(in_channels, hidden_channels, bias=False)
        self.bn = build_attention_norm(norm_cfg, hidden_channels)
        self.relu = StarReLU()
        self.head_channels = head_channels
        for head, channels in head_channels.items():
            self.add_module(f'{head}_fc', FullyConnected(hidden_channels, channels))

    def forward(self, averages: Tensor) -> dict[str, Tensor]:
        hidden = self.relu(normalize_hidden(self.bn, self.fc(averages)))
        return {head: getattr(self, f'{head}_fc')(hidden).sigmoid() for head in self.head_channels}


class FDConvLocalAttention(nn.Module):
    """An attention for each element of a kernel: norm → convolution along the channels → sigmoid.

    Args:
        in_channels (int): channels of the averages.
        elements (int): those of a kernel for each input channel, c_out · k².

    Shape:
        input Tensor[batch, in_channels], output Tensor[batch, elements, in_channels]
    """

    def __init__(self, in_channels: int, elements: int) -> None:
        super().__init__()
        size = round(math.log2(in_channels) / 2 + 1 / 2) // 2 * 2 + 1
        self.norm = nn.LayerNorm(in_channels)
        self.conv = nn.Conv1d(1, elements, size, padding=size // 2, bias=False)

    def forward(self, averages: Tensor) -> Tensor:
        return self.conv(self.norm(averages)[:, None]).sigmoid()


@MODELS.register_module()
class FDConv2d(SampleKernelConv2d, AttentionHooks):
    r"""Convolution whose kernel is put together in the Fourier domain for each sample (FDConv, Eq. 3 to 10).

    .. math:: y = W' * \mathrm{FBM}(x), \quad W' = 16 \, \alpha_s \odot \alpha_c \odot \alpha_f \odot \alpha_l \odot
        \mathcal{F}^{-1}\Big(\sum_i 2 \alpha_{wi} \, P_i\Big)

    The learned weight is the Fourier transform of a kernel, laid out as a matrix [out_channels · k, in_channels · k].
    Its coefficients are cut into n groups P_i by their frequency; where n does not divide their number, groups differ
    by one coefficient. Which group each is in is a buffer, so that it stays the same wherever the weights go.
    Attentions are sigmoids of the averaged features: of groups (α_w), of the kernel's places (α_s; not of 1×1
    kernels), of input channels (α_c), output channels (α_f), and of each element of the kernel (α_l). FBM weights
    frequency bands of the features of a 3×3 convolution position by position, see
    :func:`dynconv_mm.functional.frequency.frequency_bands`.

    At first all attentions are 1/2 and all bands count 1, whatever the input is: the layer computes what the static
    convolution does. (The release starts with FCs near 0, and one of them far from it.)

    A convolution of few channels on either side, or of another kernel than 1×1 and 3×3, is an ordinary convolution by
    ``weight``, as in the release.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias, padding_mode, device, dtype: as in
            :class:`torch.nn.Conv2d`; ``bias`` is static.
        groups (int): 1. The coefficients of a kernel in groups would not be of one matrix.
        kernel_num (int): n, from 1 to 256 and no more than there are coefficients. Default: 64.
        reduction (float): r; the global attention's hidden width is max(⌊in_channels·r⌋, 16). In (0, 1].
            Default: 1/16.
        static_channels (int): a convolution of so many channels on either side, or fewer, is an ordinary one.
            Default: 16.
        norm_cfg (dict, optional): norm behind the first FC: 'BN', 'SyncBN', 'GN', 'LN' or None.
            Default: dict(type='BN').

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, out_channels, out_height, out_width], the
        size as of :class:`torch.nn.Conv2d`; batch 0 gives an empty map.

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> FDConv2d(32, 48, 3, padding=1)(torch.randn(2, 32, 9, 7)).shape
        torch.Size([2, 48, 9, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, kernel_num: int = 64,
                 reduction: float = 1 / 16, static_channels: int = 16,
                 norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                  padding_mode)
        if groups != 1:
            raise ValueError('groups must be 1, as FDConv2d transforms a kernel as one matrix of all its channels, but '
                             f'is {groups}')
        for name, value in (('kernel_num', kernel_num), ('static_channels', static_channels)):
            check_positive_int(name, value)
        check_reduction(reduction, '1/16')
        self.kernel_num = kernel_num
        self._init_bias(bias)
        self._init_attention_hooks()
        self.attention = self.local_attention = self.band_conv = None
        if min(in_channels, out_channels) > static_channels and self.kernel_size in KERNEL_SIZES:
            self._init_attentions(max(int(in_channels * reduction), 16), norm_cfg)
        else:
            self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *self.kernel_size))
        self.init_weights()
        self._place(device, dtype)

    def _init_attentions(self, hidden_channels: int, norm_cfg: dict | None) -> None:
        """Build what a dynamic convolution has."""
        rows, columns = self.matrix_size
        count = rows * (columns // 2 + 1)
        if self.kernel_num > min(count, 256):
            raise ValueError(f'kernel_num must be at most {min(count, 256)} for {count} coefficients, but is '
                             f'{self.kernel_num}')
        area = math.prod(self.kernel_size)
        self.dft_weight = nn.Parameter(torch.empty(rows, columns // 2 + 1, 2))
        self.register_buffer('coefficient_groups', torch.empty(rows, columns // 2 + 1, dtype=torch.uint8))
        heads = dict(channel=self.in_channels, filter=self.out_channels, spatial=area, kernel=self.kernel_num)
        if area == 1:
            del heads['spatial']
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.attention = FDConvAttention(self.in_channels, hidden_channels, heads, norm_cfg)
        self.local_attention = FDConvLocalAttention(self.in_channels, self.out_channels * area)
        if area > 1:
            self.band_conv = StaticConv2d(self.in_channels, len(BANDS), 3, padding=1)

    @property
    def matrix_size(self) -> tuple[int, int]:
        """Rows, (output channel, place), and columns, (input channel, place), of the kernel as a matrix."""
        return self.out_channels * self.kernel_size[0], self.in_channels * self.kernel_size[1]

    @property
    def _weight_scale(self) -> int:
        """How many times larger the coefficients are than ``dft_weight``."""
        return min(self.in_channels, self.out_channels) // 2

    def init_weights(self) -> None:
        """A kernel that is Kaiming-normal by fan-out, of which all attentions leave what it is; bias 0."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        kernel = torch.empty(self.out_channels, self.in_channels, *self.kernel_size, device=self._device)
        if self.attention is not None:
            with torch.no_grad():
                self.coefficient_groups.copy_(coefficient_groups(*self.matrix_size, self.kernel_num))
            self.attention.fc.init_weights()
            self.attention.relu.init_weights()
        self.set_kernel(nn.init.kaiming_normal_(kernel, mode='fan_out', nonlinearity='relu'))

    @property
    def _device(self) -> torch.device:
        return (self.weight if self.attention is None else self.dft_weight).device

    @torch.no_grad()
    def set_kernel(self, kernel: Tensor) -> None:
        """Let the layer compute, at first and whatever the input is, the convolution by a kernel.

        Args:
            kernel (Tensor[out_channels, in_channels, kernel_height, kernel_width]): the kernel.
        """
        if self.attention is None:
            self.weight.copy_(kernel)
            return
        self.neutralize_attention()
        matrix = kernel.to(accumulation_dtype(self.dft_weight.dtype)).transpose(1, 2).reshape(self.matrix_size)
        self.dft_weight.copy_(torch.view_as_real(torch.fft.rfft2(matrix)) / self._weight_scale)

    def neutralize_attention(self) -> float:
        """Let all attentions be 1/2 and the bands as they are for every input, and yet learn; returns 1, what that
        multiplies the kernel by."""
        if self.attention is not None:
            last = [getattr(self.attention, f'{head}_fc') for head in self.attention.head_channels]
            for module in (*last, self.local_attention.conv, *([] if self.band_conv is None else [self.band_conv])):
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)
        return 1.

    def coefficient_rates(self) -> dict[str, float]:
        """By the parameter's name, how much less a step of SGD moves the kernel than it moves that of a static layer;
        the square root is that of Adam's steps, whose length does not depend on gradients."""
        return {} if self.attention is None else {'dft_weight': math.prod(self.matrix_size) / 2
                                                  / self._weight_scale**2}

    def attention_modules(self) -> list[nn.Module]:
        """What computes attentions and the weights of bands (``KSM_Global``, ``KSM_Local``, ``FBM`` in the release)."""
        return [module for module in (self.attention, self.local_attention, self.band_conv) if module is not None]

    def compute_attentions(self, x: Tensor) -> dict[str, Tensor]:
        """The global attentions of features.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            dict[str, Tensor]: 'kernel' is [batch, n]; 'channel', 'filter' and, of 3×3 kernels, 'spatial' are
            [batch, length], of length in_channels, out_channels and 9.
        """
        return {} if self.attention is None else self.attention(self.pool(x))

    def compute_kernels(self, x: Tensor) -> Tensor:
        averages = self.pool(x)
        attentions, local = self.attention(averages), self.local_attention(averages)
        for hook in tuple(self._attention_hooks.values()):  # a hook may remove itself
            hook(self, attentions)
        # twice each attention, of which the local one is one more, so that 1/2 is neutral
        scale = self._weight_scale * 2.**(len(attentions) + 1)
        kernels = frequency_kernels(attentions['kernel'], self.dft_weight, self.coefficient_groups,
                                    self.matrix_size[1], scale)
        rows = attentions['filter'][:, :, None]
        if 'spatial' in attentions:
            rows = (rows * attentions['spatial'][:, None]).flatten(1)[:, :, None]
        factors = local * rows * attentions['channel'][:, None]
        (height, width), channels = self.kernel_size, self.in_channels
        kernels = kernels.unflatten(2, (channels, width)).unflatten(1, (self.out_channels, height)).transpose(2, 3)
        return kernels * factors.unflatten(1, (self.out_channels, height, width)).permute(0, 1, 4, 2, 3)

    def compute_features(self, x: Tensor) -> Tensor:
        """The features with their bands weighted."""
        return x if self.band_conv is None else frequency_bands(x, 2 * self.band_conv(x).sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        if self.attention is not None:
            return super().forward(x)
        check_input(x, self.in_channels)
        x, padding = self._pad(x)
        return conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return super().extra_repr() + (', static' if self.attention is None else f', kernel_num={self.kernel_num}')

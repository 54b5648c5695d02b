"""Dynamic convolution: attention over convolution kernels (Chen et al.: CVPR 2020, https://arxiv.org/abs/1912.03458)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.attention import Head, attention
from .average_pool import PoolsFeatures
from .conv_arguments import check_bool, check_reduction
from .fully_connected import FullyConnected
from .mixture_conv import MixtureConv2d
from .temperature import TemperatureMixin


class DyConvAttention(nn.Module, PoolsFeatures):
    """The squeeze-and-excitation of DyConv (Fig. 3): average → FC → ReLU → FC → softmax.

    Args:
        in_channels (int): channels of the features.
        hidden_channels (int): width between the FCs.
        kernel_num (int): n, the number of kernels.
    """

    def __init__(self, in_channels: int, hidden_channels: int, kernel_num: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.fc1 = FullyConnected(in_channels, hidden_channels)
        self.fc2 = FullyConnected(hidden_channels, kernel_num)

    def init_weights(self) -> None:
        """Initialise both FCs anew."""
        self.fc1.init_weights()
        self.fc2.init_weights()

    def forward(self, x: Tensor, temperature: Tensor) -> dict[str, Tensor]:
        """'kernel': π, Tensor[batch, n].

        Args:
            x (Tensor[batch, in_channels, height, width]): features.
            temperature (Tensor[]): τ.
        """
        return attention(x, self.in_channels, self.fc1, None, dict(kernel=Head(self.fc2, softmax=True)), temperature)


@MODELS.register_module()
class DyConv2d(MixtureConv2d, TemperatureMixin):
    r"""Convolution by n kernels that are added up by attention (DyConv, Eq. 2 and 5).

    .. math:: y = \Big(\sum_i \pi_i W_i\Big) * x, \quad
        \pi = \mathrm{softmax}(\mathrm{FC}_2(\mathrm{ReLU}(\mathrm{FC}_1(\mathrm{avg}(x)))) / \tau)

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is static: it is not mixed.
        kernel_num (int): n, the number of kernels. Default: 4.
        reduction (float): the attention's hidden width is ⌊in_channels·reduction⌋, at least 1. In (0, 1].
            Default: 1/4.
        temperature (float): initial temperature τ. Default: 1.
        attention (bool): whether the kernels are weighted; without, each π_i is 1 and the layer is an ordinary
            convolution by the sum of its kernels (ODConv, 3.1: "removing the attention mechanism"). Default: True.
        plan (str): how the mixture is executed, see :data:`dynconv_mm.functional.PLANS`. Default: 'auto'.

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, out_channels, out_height,
        out_width], the size as of :class:`torch.nn.Conv2d`; batch 0 gives an empty map.

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> layer = DyConv2d(8, 6, 3, padding=1, bias=False)
        >>> layer(torch.randn(2, 8, 9, 9)).shape
        torch.Size([2, 6, 9, 9])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, kernel_num: int = 4,
                 reduction: float = 1 / 4, temperature: float = 1., attention: bool = True,
                 plan: str = 'auto') -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         padding_mode, kernel_num, plan)
        check_reduction(reduction, '1/4')
        check_bool('attention', attention)
        self._init_temperature(temperature)
        self.attention = DyConvAttention(in_channels, max(int(in_channels * reduction), 1),
                                         kernel_num) if attention else None
        self.init_weights()
        self._place(device, dtype)

    def init_weights(self) -> None:
        """Every kernel and FC Kaiming-normal by fan-out, biases 0 (the paper does not say; as ODConv's reference)."""
        super().init_weights()
        if self.attention is not None:
            self.attention.init_weights()

    def compute_attentions(self, x: Tensor) -> dict[str, Tensor]:
        """'kernel': π, Tensor[batch, n], of features Tensor[batch, in_channels, height, width]; nothing without
        attention."""
        return {} if self.attention is None else self.attention(x, self.temperature)

    def attention_modules(self) -> list[nn.Module]:
        return [] if self.attention is None else [self.attention]

    def neutralize_attention(self) -> float:
        """All logits 0, see :meth:`MixtureConv2d.neutralize_attention`."""
        if self.attention is None:
            return float(self.kernel_num)
        nn.init.zeros_(self.attention.fc2.weight)
        nn.init.zeros_(self.attention.fc2.bias)
        return 1.

    def extra_repr(self) -> str:
        return super().extra_repr() + (', attention=False' if self.attention is None else '')

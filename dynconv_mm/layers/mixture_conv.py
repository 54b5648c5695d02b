"""What the layers share that convolve with a mixture of kernels: their weights, initialisation and execution."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..functional.batch_norm import BatchNorm
from ..functional.mixture_conv import check_plan, mixture_conv2d
from ..functional.operator import is_left_out
from .attention_hooks import AttentionHooks
from .conv_arguments import ConvArguments, check_positive_int

torch.fx.wrap('mixture_conv2d')


class MixtureConv2d(ConvArguments, AttentionHooks):
    """Base of the mixture layers: n kernels, a bias, and the convolution by their attended sum.

    A subclass computes the attentions in :meth:`compute_attentions`. Called, it takes the features
    and, optionally, ``shared``, what the convolutions of a block share and :meth:`compute_attentions` takes second, and
    ``norm``, a :class:`~dynconv_mm.functional.BatchNorm` that is applied to the result. ``weight`` is a
    Parameter[n, out_channels, in_channels / groups, kernel_height, kernel_width], ``bias`` a Parameter[out_channels]
    or None.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            :class:`torch.nn.Conv2d`; ``bias`` is static.
        kernel_num (int): n.
        plan (str): how the mixture is executed, see :data:`dynconv_mm.functional.PLANS`.

    Raises:
        ValueError: an argument is not one of the above; the message names it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int], padding: int | str | tuple[int, int], dilation: int | tuple[int, int],
                 groups: int, bias: bool, padding_mode: str, kernel_num: int, plan: str) -> None:
        super().__init__()
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                  padding_mode)
        check_positive_int('kernel_num', kernel_num)
        check_plan(plan)
        self.kernel_num = kernel_num
        self.plan = plan
        self.weight = nn.Parameter(torch.empty(kernel_num, out_channels, in_channels // groups, *self.kernel_size))
        self._init_bias(bias)
        self._init_attention_hooks()

    def init_weights(self) -> None:
        """Each kernel Kaiming-normal by fan-out, as if it were alone; bias 0."""
        self._init_kernels()

    def compute_attentions(self, x: Tensor) -> dict[str, Tensor]:
        """The attentions of features, by name, as :func:`~dynconv_mm.functional.mixture_conv2d` takes them.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.
        """
        raise NotImplementedError

    def attention_modules(self) -> list[nn.Module]:
        """The modules that compute the attentions: all that is not static."""
        raise NotImplementedError

    def neutralize_attention(self) -> float:
        """Let the attentions be the same for every input, at any temperature, and yet learn.

        Returns:
            float: their sum over the kernels, Σ_i α_wi α_f α_c α_s; kernels W / that compute the convolution by W.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, shared: Tensor | None = None, norm: BatchNorm | None = None) -> Tensor:
        own = shared is None or is_left_out(shared)
        if not own and not self.takes_shared:
            self._refuse_shared()
        attentions = self.compute_attentions(x) if own else self.compute_attentions(x, shared)
        for hook in tuple(self._attention_hooks.values()):  # a hook may remove itself
            hook(self, attentions)
        padding = self.padding
        if self.padding_mode != 'zeros' or isinstance(padding, str):
            x, padding = self._pad(x)
        return mixture_conv2d(x, self.weight, self.bias, kernel_attention=attentions.get('kernel'),
                              spatial_attention=attentions.get('spatial'),
                              channel_attention=attentions.get('channel'), filter_attention=attentions.get('filter'),
                              stride=self.stride, padding=padding, dilation=self.dilation, groups=self.groups,
                              norm=norm, plan=self.plan)

    def extra_repr(self) -> str:
        plan = '' if self.plan == 'auto' else f', plan={self.plan!r}'
        return f'{super().extra_repr()}, kernel_num={self.kernel_num}{plan}'

"""Involution (Li et al., CVPR 2021, https://arxiv.org/abs/2103.06255)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.geometry import check_input
from ..functional.involution import involution2d
from .conv_arguments import ConvArguments, check_divisor, check_module_cfg
from .conv_norm_act import ConvNormAct
from .static_conv import STATIC_CONV_CFG, StaticConv2d

torch.fx.wrap('check_input')
torch.fx.wrap('involution2d')


def check_odd(name: str, kernel_size: int | tuple[int, int]) -> None:
    """Raise a ValueError that names the argument unless it is an odd, positive int or two of them."""
    sizes = kernel_size if isinstance(kernel_size, (tuple, list)) and len(kernel_size) == 2 else (kernel_size, )
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(f'{name} must be odd and positive, so that kernels have a middle, but is {kernel_size!r}')


class SizeKeepingConv(ConvArguments):
    """Base of the layers without a static kernel: at stride 1 to a map of the same size, and to as many channels but
    where ``keeps_channels`` is False."""

    keeps_channels = True

    def _init_size_keeping_arguments(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                                     stride: int | tuple[int, int], padding: int | str | tuple[int, int] | None,
                                     dilation: int | tuple[int, int], groups: int, padding_mode: str) -> None:
        """Check and keep them; raises a ValueError that names the argument."""
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, 0 if padding is None else padding,
                                  dilation, groups, padding_mode)
        name = type(self).__name__
        if self.keeps_channels and out_channels != in_channels:
            raise ValueError(f'out_channels must be in_channels, as {name} maps channels to as many, but '
                             f'in_channels={in_channels} and out_channels={out_channels}')
        if groups != 1:
            raise ValueError(f'groups must be 1, as {name} has groups of group_channels instead, but is {groups}')
        check_odd('kernel_size', kernel_size)
        keeping = tuple(d * (k - 1) // 2 for d, k in zip(self.dilation, self.kernel_size))
        if padding is None:
            self.padding = keeping
        elif self.padding not in ('same', keeping):
            raise ValueError(f'padding must be {keeping}, dilation * (kernel_size - 1) / 2, which gives each kernel '
                             f'its position, but is {padding!r}. A ConvModule that pads by a layer of its own '
                             "(padding_mode='reflect' or 'replicate') asks for 0: give such a padding_mode to "
                             f'{name} itself')


class PositionKernelConv2d(SizeKeepingConv):
    """Base of the layers that aggregate the neighbours of each position by a kernel of its own."""

    def _make_stride_pool(self) -> nn.Module:
        """Averages over the stride, those at the edge over the pixels that there are."""
        if self.stride == (1, 1):
            return nn.Identity()
        return nn.AvgPool2d(self.stride, self.stride, ceil_mode=True, count_include_pad=False)

    def init_weights(self) -> None:
        """Initialise as OpenMMLab does: Kaiming-normal by fan-out, norms 1, biases 0."""
        for module in self.modules():
            if isinstance(module, (ConvNormAct, StaticConv2d)):
                module.init_weights()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def compute_kernels(self, x: Tensor) -> Tensor:
        """The kernels of features, Tensor[batch, groups, kernel_height, kernel_width, out_height, out_width]."""
        raise NotImplementedError

    def compute_values(self, x: Tensor) -> Tensor:
        """What is aggregated, Tensor[batch, out_channels, height, width]: the features."""
        return x

    def aggregate(self, values: Tensor, kernels: Tensor, padding: tuple[int, int]) -> Tensor:
        """Their sums, Tensor[batch, out_channels, out_height, out_width]."""
        return involution2d(values, kernels, stride=self.stride, padding=padding, dilation=self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        kernels = self.compute_kernels(x)
        values, padding = self._pad(self.compute_values(x))
        y = self.aggregate(values, kernels, padding)
        return y if self.bias is None else y + self.bias[:, None, None].to(y.dtype)


@MODELS.register_module()
class Involution2d(PositionKernelConv2d):
    r"""Convolution by a kernel that each position predicts for itself (Involution, Eq. 4 to 6).

    .. math:: y_{bchw} = \sum_{ij} H_{b g(c) ij hw} \, x_{bc,h+i,w+j}, \qquad H = W_1 \, σ(W_0 \, x)

    Each group of ``group_channels`` neighbouring channels shares a kernel. W_0 is a 1×1 convolution with norm,
    σ is ReLU, W_1 a 1×1 convolution with bias. At stride s > 1, W_0 takes s×s averages, those at the edge over
    the pixels that there are, so that odd sizes give ⌈size / s⌉ as in :class:`torch.nn.Conv2d`.

    Args:
        in_channels, out_channels (int): C, both the same; a multiple of ``group_channels``.
        kernel_size (int | tuple[int, int]): odd. Default: 7.
        stride, dilation, bias, device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is added to the result
            and is not in the paper.
        padding (int | tuple[int, int] | str, optional): dilation · (kernel_size − 1) / 2, which is the default;
            no other gives each kernel its position.
        groups (int): 1.
        padding_mode (str): 'zeros', 'reflect', 'replicate' or 'circular'. Default: 'zeros'.
        group_channels (int): channels that share kernels. Default: 16.
        reduction (float): W_0 has ⌊C · reduction⌋ outputs, in (0, 1]. Default: 1/4.
        norm_cfg (dict, optional): norm behind W_0. Default: dict(type='BN').

    Shape:
        input Tensor[batch, C, height, width], output Tensor[batch, C, ⌈height / stride⌉, ⌈width / stride⌉]

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> layer = Involution2d(32, 32, 7, stride=2, bias=False)
        >>> layer(torch.randn(2, 32, 15, 14)).shape
        torch.Size([2, 32, 8, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 7,
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] | None = None,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, group_channels: int = 16,
                 reduction: float = 1 / 4, norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        self._init_size_keeping_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                          padding_mode)
        check_divisor('group_channels', group_channels, 'in_channels', in_channels)
        if isinstance(reduction, bool) or not isinstance(reduction, (int, float)) or not 0 < reduction <= 1 \
                or int(in_channels * reduction) < 1:
            raise ValueError(f'reduction must be in (0, 1] and leave a channel of in_channels={in_channels}, e.g. 1/4, '
                             f'but is {reduction!r}')
        check_module_cfg('norm_cfg', norm_cfg, "dict(type='BN')", optional=True)
        self.group_channels = group_channels
        self.reduction = reduction
        self._init_bias(bias)
        self.pool = self._make_stride_pool()
        kernel_area = self.kernel_size[0] * self.kernel_size[1]
        self._make_branch(int(in_channels * reduction), kernel_area * (in_channels // group_channels), norm_cfg)
        self._place(device, dtype)

    def _make_branch(self, hidden_channels: int, kernel_channels: int, norm_cfg: dict | None) -> None:
        """Build what predicts kernels; the last of ``self.branch`` (names of modules, in order) puts them out."""
        self.conv1 = ConvNormAct(self.in_channels, hidden_channels, 1, conv_cfg=STATIC_CONV_CFG, norm_cfg=norm_cfg)
        self.conv2 = ConvNormAct(hidden_channels, kernel_channels, 1, conv_cfg=STATIC_CONV_CFG, act_cfg=None)
        self.branch = ['conv1', 'conv2']

    def compute_kernels(self, x: Tensor) -> Tensor:
        """The kernels of features.

        Args:
            x (Tensor[batch, C, height, width]): features.

        Returns:
            Tensor[batch, C / group_channels, kernel_height, kernel_width, out_height, out_width]
        """
        kernels = self.pool(x)
        for name in self.branch:
            kernels = getattr(self, name)(kernels)
        return kernels.unflatten(1, (self.in_channels // self.group_channels, *self.kernel_size))

    def attention_modules(self) -> list[nn.Module]:
        """The modules that predict the kernels: all there are."""
        return [getattr(self, name) for name in self.branch]

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, group_channels={self.group_channels}'

"""Dual complementary dynamic convolution (Yan, Qin, Liu, Chen: 2022, https://arxiv.org/abs/2211.06163)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.geometry import check_input
from ..functional.sample_conv import sample_conv2d
from .conv_arguments import check_positive_int
from .conv_norm_act import ConvNormAct
from .fully_connected import FullyConnected
from .involution import Involution2d, SizeKeepingConv, check_odd
from .static_conv import STATIC_CONV_CFG, StaticConv2d

torch.fx.wrap('check_input')
torch.fx.wrap('sample_conv2d')

GSI_KINDS = ('dynamic', 'none', 'conv_small', 'conv_large')


class LSA(Involution2d):
    """The local spatial-adaptive branch (DCDC, Eq. 5 and 7): an involution whose kernels look around.

    They are predicted by ``depth`` pairs of a depthwise convolution with norm and a 1×1 convolution, the last of
    which has a bias and the others norm and ReLU.

    Args:
        channels (int): C.
        dw_kernel_size (int, optional): of the depthwise convolutions, odd; None leaves them out.
        depth (int): N, the number of pairs.
        **kwargs: of :class:`Involution2d`.
    """

    def __init__(self, channels: int, dw_kernel_size: int | None, depth: int, **kwargs) -> None:
        self.dw_kernel_size = dw_kernel_size
        self.depth = depth
        super().__init__(channels, channels, bias=False, **kwargs)

    def _make_branch(self, hidden_channels: int, kernel_channels: int, norm_cfg: dict | None) -> None:
        self.branch = []
        channels = self.in_channels
        for number in range(1, self.depth + 1):
            if self.dw_kernel_size is not None:
                self._add(f'dw{number}', ConvNormAct(channels, channels, self.dw_kernel_size, groups=channels,
                                                     padding=self.dw_kernel_size // 2, bias=False,
                                                     conv_cfg=STATIC_CONV_CFG, norm_cfg=norm_cfg, act_cfg=None))
            if number < self.depth:
                conv = ConvNormAct(channels, hidden_channels, 1, bias=False, conv_cfg=STATIC_CONV_CFG,
                                   norm_cfg=norm_cfg)
            else:
                conv = ConvNormAct(channels, kernel_channels, 1, conv_cfg=STATIC_CONV_CFG, act_cfg=None)
            self._add(f'conv{number}', conv)
            channels = hidden_channels

    def _add(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.branch.append(name)


class GSI(nn.Module):
    """The global shift-invariant branch (DCDC, Eq. 8 to 10): a convolution by a kernel that a sample predicts.

    1×1 conv to fewer channels, ReLU → the convolution, its kernel an FC of the averaged features → 1×1 conv, norm.

    Args:
        channels, hidden_channels (int): C and c.
        kernel_size (int): of the convolution, odd.
        stride, dilation (tuple[int, int]): of the convolution.
        dynamic (bool): with False, the convolution is a static one ('conv_small' of Table III).
        norm_cfg (dict, optional): norm behind the last convolution.
    """

    def __init__(self, channels: int, hidden_channels: int, kernel_size: int, stride: tuple[int, int],
                 dilation: tuple[int, int], dynamic: bool, norm_cfg: dict | None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.geometry = dict(stride=stride, dilation=dilation,
                             padding=tuple(d * (kernel_size - 1) // 2 for d in dilation))
        self.conv1 = ConvNormAct(channels, hidden_channels, 1, bias=False, conv_cfg=STATIC_CONV_CFG)
        self.pool = nn.AdaptiveAvgPool2d(1) if dynamic else None
        self.fc = FullyConnected(hidden_channels, hidden_channels**2 * kernel_size**2) if dynamic else None
        self.conv = None if dynamic else StaticConv2d(hidden_channels, hidden_channels, kernel_size, bias=False,
                                                      **self.geometry)
        self.conv2 = ConvNormAct(hidden_channels, channels, 1, bias=False, conv_cfg=STATIC_CONV_CFG,
                                 norm_cfg=norm_cfg, act_cfg=None)

    def compute_kernel(self, hidden: Tensor) -> Tensor:
        """The kernel of each sample, Tensor[batch, c, c, kernel_size, kernel_size], of features Tensor[batch, c,
        height, width] (Eq. 10)."""
        channels = hidden.shape[1]
        kernel = self.fc(self.pool(hidden))
        return kernel.reshape(kernel.shape[0], channels, channels, self.kernel_size, self.kernel_size)

    def attention_modules(self) -> list[nn.Module]:
        """The FC that predicts the kernel."""
        return [] if self.fc is None else [self.fc]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(x)
        if self.conv is not None:
            return self.conv2(self.conv(hidden))
        kernel = self.compute_kernel(hidden)
        return self.conv2(sample_conv2d(hidden, kernel, **self.geometry))


@MODELS.register_module()
class DCDC2d(SizeKeepingConv):
    r"""Dual complementary dynamic convolution (DCDC, Eq. 11).

    .. math:: y = \mathrm{LSA}(x) + \mathrm{GSI}(x)

    LSA is an involution whose kernels are predicted from a neighbourhood; GSI convolves all positions of a sample
    by one kernel, predicted from the whole map. Where ReLUs stand in LSA's branch and what happens at a stride
    beyond 1 the paper leaves open: both are as in involution (average, then predict), and GSI's strided
    convolution comes behind its first 1×1 one. The number of depthwise and 1×1 convolutions, of norms and biases
    is that which gives all parameter counts of Tables I, III and IV.

    Args:
        in_channels, out_channels (int): C, both the same; a multiple of ``group_channels``.
        kernel_size (int | tuple[int, int]): odd; of the convolution whose place this layer takes. It has no effect
            but on what ``padding`` must be. Default: 3.
        stride, bias, device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is added to the result and is not in
            the paper.
        padding (int | tuple[int, int] | str, optional): dilation · (kernel_size − 1) / 2, which is the default.
        dilation (int | tuple[int, int]): of LSA's kernels and of GSI's; not of the depthwise convolutions.
        groups (int): 1.
        padding_mode (str): 'zeros'.
        lsa_kernel_size (int): k_lsa, odd. Default: 7.
        lsa_dw_kernel_size (int, optional): k_lsa^dw, odd (Table IV a); None leaves the depthwise convolutions out.
            Default: 3.
        lsa_depth (int): N, pairs of depthwise and 1×1 convolutions that predict LSA's kernels. Default: 2.
        gsi_kernel_size (int): k_gsi, odd (Table IV b). Default: 1.
        gsi_ratio (float): λ; GSI works on c = ⌊λ·√C⌋ channels (Table IV c). Default: 1.
        gsi (str): 'dynamic', or an ablation of Table III: 'none', LSA alone; 'conv_small', a static 3×3
            convolution in place of GSI's dynamic one; 'conv_large', a static 3×3 convolution of C channels in
            place of GSI. Default: 'dynamic'.
        reduction (float): α; LSA's branch has ⌊C · reduction⌋ channels inside, in (0, 1]. Default: 1/4.
        group_channels (int): channels that share LSA's kernels. Default: 16.
        norm_cfg (dict, optional): of all norms inside. Default: dict(type='BN').

    Shape:
        input Tensor[batch, C, height, width], output Tensor[batch, C, ⌈height / stride⌉, ⌈width / stride⌉]

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> layer = DCDC2d(64, 64, 3, padding=1, gsi_ratio=2., bias=False)
        >>> layer(torch.randn(2, 64, 9, 9)).shape
        torch.Size([2, 64, 9, 9])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 3,
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] | None = None,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, lsa_kernel_size: int = 7,
                 lsa_dw_kernel_size: int | None = 3, lsa_depth: int = 2, gsi_kernel_size: int = 1,
                 gsi_ratio: float = 1., gsi: str = 'dynamic', reduction: float = 1 / 4, group_channels: int = 16,
                 norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        self._init_size_keeping_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                          padding_mode)
        if padding_mode != 'zeros':
            raise ValueError(f"padding_mode must be 'zeros' for DCDC2d, but is {padding_mode!r}")
        for name, value in (('lsa_kernel_size', lsa_kernel_size), ('lsa_dw_kernel_size', lsa_dw_kernel_size),
                            ('gsi_kernel_size', gsi_kernel_size)):
            if isinstance(value, (tuple, list)):
                raise ValueError(f'{name} must be an int, but is {value!r}')
            if name != 'lsa_dw_kernel_size' or value is not None:
                check_odd(name, value)
        check_positive_int('lsa_depth', lsa_depth)
        if isinstance(gsi_ratio, bool) or not isinstance(gsi_ratio, (int, float)) \
                or not 1 <= gsi_ratio * math.sqrt(in_channels) < math.inf:
            raise ValueError(f'gsi_ratio must be a number that leaves a channel of √in_channels={in_channels}, but is '
                             f'{gsi_ratio!r}')
        if gsi not in GSI_KINDS:
            raise ValueError(f'gsi must be one of {GSI_KINDS}, but is {gsi!r}')
        self.gsi_kind = gsi
        self._init_bias(bias)
        self.lsa = LSA(in_channels, lsa_dw_kernel_size, lsa_depth, kernel_size=lsa_kernel_size, stride=self.stride,
                       dilation=self.dilation, group_channels=group_channels, reduction=reduction, norm_cfg=norm_cfg)
        self.gsi = None
        if gsi in ('dynamic', 'conv_small'):
            dynamic = gsi == 'dynamic'
            self.gsi = GSI(in_channels, int(gsi_ratio * math.sqrt(in_channels)), gsi_kernel_size if dynamic else 3,
                           self.stride, self.dilation, dynamic, norm_cfg)
        elif gsi == 'conv_large':
            self.gsi = StaticConv2d(in_channels, in_channels, 3, self.stride, self.dilation, self.dilation,
                                    bias=False)
        self.init_weights()
        self._place(device, dtype)

    def init_weights(self) -> None:
        """Initialise as OpenMMLab does: Kaiming-normal by fan-out, norms 1, biases 0.

        By fan-out too the FC that puts out GSI's kernels, so that these have the variance of Kaiming-normal ones
        wherever its inputs have that of a ReLU's output.
        """
        for module in self.modules():
            if isinstance(module, (ConvNormAct, FullyConnected, StaticConv2d)):
                module.init_weights()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        y = self.lsa(x)
        if self.gsi is not None:
            y = y + self.gsi(x)
        return y if self.bias is None else y + self.bias[:, None, None].to(y.dtype)

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        if self.gsi_kind != 'dynamic':
            parts.append(f'gsi={self.gsi_kind!r}')
        return ', '.join(parts)

"""Attention to the features that a layer puts out, with which ODConv's Table 2 compares: SE, CBAM, ECA.

They are plugins as mmcv's: ``build_plugin_layer`` builds them, and a backbone's ``plugins`` argument places them.
Many packages have modules of these names, so that in the registry they are called ``DynConvSELayer``, ``DynConvCBAM``
and ``DynConvECALayer``.
"""
from __future__ import annotations

import math

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ...functional.geometry import check_input
from ...layers.conv_arguments import check_positive_int
from ...layers.fully_connected import FullyConnected

torch.fx.wrap('check_input')


class ChannelMLP(nn.Module):
    """FC → ReLU → FC over the channels of pooled features, without biases.

    Args:
        in_channels (int): channels.
        ratio (int): the hidden width is ⌊in_channels / ratio⌋, at least 1.

    Shape:
        input Tensor[batch, in_channels, 1, 1], output the same
    """

    def __init__(self, in_channels: int, ratio: int) -> None:
        super().__init__()
        check_positive_int('in_channels', in_channels)
        check_positive_int('ratio', ratio)
        hidden_channels = max(in_channels // ratio, 1)
        self.fc1 = FullyConnected(in_channels, hidden_channels, bias=False)
        self.fc2 = FullyConnected(hidden_channels, in_channels, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(pooled)))[:, :, None, None]


@MODELS.register_module('DynConvSELayer')
class SELayer(nn.Module):
    r"""Squeeze and excitation (Hu et al., CVPR 2018).

    .. math:: y = x \odot \mathrm{sigmoid}(\mathrm{FC}_2(\mathrm{ReLU}(\mathrm{FC}_1(\mathrm{avg}(x)))))

    The FCs have no biases: so the parameters are those of ODConv's Tables 2, 3 and 14.

    Args:
        in_channels (int): channels of the features.
        ratio (int): the hidden width is ⌊in_channels / ratio⌋, at least 1. Default: 16.

    Shape:
        input Tensor[batch, in_channels, height, width], output the same

    Raises:
        ValueError: an argument is no positive int.
    """

    _abbr_ = 'se_layer'

    def __init__(self, in_channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.mlp = ChannelMLP(in_channels, ratio)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        return x * self.mlp(self.pool(x)).sigmoid()


@MODELS.register_module('DynConvCBAM')
class CBAM(nn.Module):
    r"""Convolutional block attention module (Woo et al., ECCV 2018): attention to channels, then to places.

    .. math:: x' = x \odot \mathrm{sigmoid}(\mathrm{MLP}(\mathrm{avg}(x)) + \mathrm{MLP}(\mathrm{max}(x))), \quad
        y = x' \odot \mathrm{sigmoid}(f([\mathrm{avg}_C(x'); \mathrm{max}_C(x')]))

    where f is a convolution (Eq. 2 and 3). Neither the MLP nor f has biases: so the parameters are those of
    ODConv's Tables 2 and 3.

    Args:
        in_channels (int): channels of the features.
        ratio (int): the MLP's hidden width is ⌊in_channels / ratio⌋, at least 1. Default: 16.
        kernel_size (int): of f; odd. Default: 7.

    Shape:
        input Tensor[batch, in_channels, height, width], output the same

    Raises:
        ValueError: an argument is no positive int, or ``kernel_size`` is even.
    """

    _abbr_ = 'cbam'

    def __init__(self, in_channels: int, ratio: int = 16, kernel_size: int = 7) -> None:
        super().__init__()
        check_odd('kernel_size', kernel_size)
        self.in_channels = in_channels
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.max_pool = nn.AdaptiveMaxPool2d(1)
        self.mlp = ChannelMLP(in_channels, ratio)
        self.spatial_conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        x = x * (self.mlp(self.avg_pool(x)) + self.mlp(self.max_pool(x))).sigmoid()
        places = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.spatial_conv(places).sigmoid()


@MODELS.register_module('DynConvECALayer')
class ECALayer(nn.Module):
    r"""Efficient channel attention (Wang et al., CVPR 2020).

    .. math:: y = x \odot \mathrm{sigmoid}(\mathrm{C1D}_k(\mathrm{avg}(x)))

    where C1D is a convolution along the channels, and k, unless given, the odd number nearest to
    :math:`\log_2(C)/2 + 1/2` (Eq. 12), as the authors round it: truncated, and 1 more if that is even.

    Args:
        in_channels (int): channels of the features.
        kernel_size (int, optional): k; odd. Default: by ``in_channels``.

    Shape:
        input Tensor[batch, in_channels, height, width], output the same

    Raises:
        ValueError: an argument is no positive int, or ``kernel_size`` is even.
    """

    _abbr_ = 'eca_layer'

    def __init__(self, in_channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        check_positive_int('in_channels', in_channels)
        if kernel_size is None:
            kernel_size = int((math.log2(in_channels) + 1) / 2) // 2 * 2 + 1
        check_odd('kernel_size', kernel_size)
        self.in_channels = in_channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        scale = self.conv(self.pool(x).flatten(1)[:, None]).sigmoid()
        return x * scale.squeeze(1)[:, :, None, None]


def check_odd(name: str, value: int) -> None:
    """Raise a ValueError that names the argument unless it is a positive, odd int."""
    check_positive_int(name, value)
    if value % 2 == 0:
        raise ValueError(f'{name} must be odd, so that the size stays, but is {value}')

"""WeightNet (Ma et al., ECCV 2020, https://arxiv.org/abs/2007.11823)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..compat.openmmlab import MODELS
from ..functional.geometry import check_input, check_vectors
from .average_pool import PoolsFeatures
from .conv_arguments import check_bool, check_positive_int
from .fully_connected import FullyConnected
from .sample_kernel import SampleKernelConv2d

torch.fx.wrap('check_input')
torch.fx.wrap('check_vectors')


def hidden_width(in_channels: int) -> int:
    """r = max(16, C / 16), the numbers that C channels are reduced to."""
    return max(16, in_channels // 16)


class WeightNetReduction(nn.Module, PoolsFeatures):
    """The averages of features, reduced by an FC: what the convolutions of a block share (WeightNet, 3.2).

    Args:
        in_channels (int): channels of the features.
        hidden_channels (int): r.

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, hidden_channels]
    """

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.fc = FullyConnected(in_channels, hidden_channels)

    def attention_modules(self) -> list[nn.Module]:
        """As of a layer: a backbone finds here what its blocks share."""
        return [self]

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        return self.fc(F.adaptive_avg_pool2d(x, 1))


@MODELS.register_module()
class WeightNetConv2d(SampleKernelConv2d):
    r"""Convolution by a kernel that a grouped FC puts out for each sample (WeightNet, Eq. 5).

    .. math:: y = W' * x, \quad W' = \mathrm{FC}_{grouped}(a), \quad
        a = \mathrm{sigmoid}(\mathrm{FC}(\mathrm{FC}(\mathrm{avg}(x))))

    a has M · C_out numbers, and the second FC G · C_out groups: the elements of each filter are cut into G segments,
    and each segment is the sum of M / G learned ones, each times its number. With M = G, the default, a scales the
    segments of one learned kernel. G counts as far as it divides the elements of a filter: in a depthwise 3×3
    convolution, of 9 elements, there is one segment, which is the paper's depthwise form.

    In the paper's networks the convolutions of a block share the reduced averages of the block's input: build them with
    ``routing=False`` and hand each the output of one :class:`WeightNetReduction`. Elsewhere, as by a ``conv_cfg``, the
    layer reduces its own input.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is static.
        multiplier (int): M, a multiple of ``group_multiplier``. Default: 2.
        group_multiplier (int): G. Default: 2.
        hidden_channels (int, optional): r. Default: max(16, in_channels / 16).
        routing (bool): whether the layer reduces its own input. Else ``forward`` needs what to compute a from as its
            second argument. Default: True.

    Shape:
        input Tensor[batch, in_channels, height, width] and, optionally, Tensor[batch, r] in place of the layer's own
        reduced averages; output Tensor[batch, out_channels, out_height, out_width], the size as of
        :class:`torch.nn.Conv2d`; batch 0 gives an empty map.

    Raises:
        ValueError: an argument is not one of the above, the message names it and what it accepts; or a layer without
            routing is called without a second argument, or one of another shape.

    Example:
        >>> WeightNetConv2d(32, 48, 3, padding=1)(torch.randn(2, 32, 9, 7)).shape
        torch.Size([2, 48, 9, 7])
    """

    takes_shared = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, multiplier: int = 2,
                 group_multiplier: int = 2, hidden_channels: int | None = None, routing: bool = True) -> None:
        super().__init__()
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                  padding_mode)
        for name, value in (('group_multiplier', group_multiplier), ('multiplier', multiplier),
                            *([] if hidden_channels is None else [('hidden_channels', hidden_channels)])):
            check_positive_int(name, value)
        if multiplier % group_multiplier:
            raise ValueError(f'multiplier must be a multiple of group_multiplier={group_multiplier}, but is '
                             f'{multiplier}')
        check_bool('routing', routing)
        self.hidden_channels = hidden = hidden_width(in_channels) if hidden_channels is None else hidden_channels
        kernel_num = multiplier // group_multiplier
        self.segments = math.gcd(group_multiplier, in_channels // groups * math.prod(self.kernel_size))
        self.weight = nn.Parameter(torch.empty(kernel_num, out_channels, in_channels // groups, *self.kernel_size))
        self._init_bias(bias)
        self.routing = WeightNetReduction(in_channels, hidden) if routing else None
        self.fc = FullyConnected(hidden, out_channels * self.segments * kernel_num)
        self.init_weights()
        self._place(device, dtype)

    def init_weights(self) -> None:
        """Each learned kernel Kaiming-normal by fan-out, and so the FCs; biases 0."""
        self._init_kernels()
        for module in self.attention_modules():
            getattr(module, 'fc', module).init_weights()

    def compute_kernels(self, x: Tensor, reduced: Tensor | None = None) -> Tensor:
        """The kernels of features.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.
            reduced (Tensor[batch, r], optional): in place of the layer's own reduced averages.

        Returns:
            Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]

        Raises:
            ValueError: there are no reduced averages, and the layer makes none; or they are of another shape.
        """
        if reduced is None:
            if self.routing is None:
                raise ValueError('WeightNetConv2d was built with routing=False and does not reduce its input: call it '
                                 'with reduced averages, layer(x, reduced), or build it with routing=True')
            reduced = self.routing(x)
        else:
            check_vectors(reduced, self.hidden_channels, 'hidden_channels', 'reduced')
            if isinstance(reduced, Tensor) and len(reduced) != x.shape[0]:  # but a stand-in of torch.fx
                raise ValueError(f'reduced must be of {x.shape[0]} images, as the features, but is of {len(reduced)}')
        factors = self.fc(reduced).sigmoid().unflatten(1, (self.out_channels, self.segments, -1))
        learned = self.weight.flatten(2).unflatten(2, (self.segments, -1))
        kernels = (factors.movedim(3, 1)[..., None] * learned).sum(1)
        return kernels.flatten(2).unflatten(2, self.weight.shape[2:])

    def attention_modules(self) -> list[nn.Module]:
        """The FCs before the learned kernels."""
        return [self.fc] if self.routing is None else [self.routing, self.fc]

    def neutralize_attention(self) -> float:
        """Let a be 1/2 for every input, and yet learn; returns its sum over the learned kernels, M / (2 G)."""
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        return len(self.weight) / 2

    def extra_repr(self) -> str:
        return super().extra_repr() + ('' if self.routing is not None else ', routing=False')

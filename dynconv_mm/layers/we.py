"""Weight excitation (Quader et al., ECCV 2020)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.batch_norm import BatchNorm
from ..functional.geometry import check_input
from .conv_arguments import check_bool, check_reduction
from .fully_connected import FullyConnected
from .static_conv import StaticConv2d

torch.fx.wrap('check_input')
torch.fx.wrap('excite_magnitudes')

SCALE = 1.1  # M is that many times the largest weight


class LocationExcitation(nn.Module):
    """A factor for each pair of channels, from the kernel itself: FC → ReLU → FC → sigmoid over its averages.

    Args:
        in_channels (int): input channels of a kernel.
        reduction (float): the hidden width is max(⌊in_channels · reduction⌋, 1).

    Shape:
        input Tensor[out_channels, in_channels, kernel_height, kernel_width], output Tensor[out_channels, in_channels]
    """

    def __init__(self, in_channels: int, reduction: float) -> None:
        super().__init__()
        hidden = max(int(in_channels * reduction), 1)
        self.fc1 = FullyConnected(in_channels, hidden)
        self.fc2 = FullyConnected(hidden, in_channels)

    def forward(self, weight: Tensor) -> Tensor:
        return self.fc2(self.fc1(weight.mean((2, 3))).relu()).sigmoid()


def excite_magnitudes(weight: Tensor) -> Tensor:
    """M/2 · ln((1 + w/M) / (1 − w/M)), M = 1.1 · max|w|, which lets large weights grow; M gets no gradient."""
    limit = _largest(weight) * SCALE
    ratio = weight / limit
    return limit / 2 * (torch.log1p(ratio) - torch.log1p(-ratio))


def calm_magnitudes(weight: Tensor) -> Tensor:
    """The inverse of :func:`excite_magnitudes`."""
    limit = _largest(weight) / math.atanh(1 / SCALE)
    return limit * torch.tanh(weight / limit)


def _largest(weight: Tensor) -> Tensor:
    return weight.detach().abs().max().clamp(min=torch.finfo(weight.dtype).tiny)  # of no weights but 0, too


@MODELS.register_module()
class WEConv2d(StaticConv2d):
    r"""A convolution whose kernel W is re-weighted by itself, whatever the input is (Weight Excitation).

    .. math:: \tilde W = \mathrm{MWE}(\mathrm{LWE}(W)), \quad
        \mathrm{LWE}(W) = \sigma(\mathrm{FC}(\mathrm{ReLU}(\mathrm{FC}(\bar W)))) \odot W, \quad
        \mathrm{MWE}(w) = \tfrac{M}{2} \ln \tfrac{1 + w/M}{1 - w/M}

    with :math:`\bar W` the averages of W over its k² positions, and M = 1.1 · max|w|. It matters in training alone:
    :meth:`fold` leaves the static convolution by :math:`\tilde W`, and
    :func:`dynconv_mm.conversion.fold_weight_excitation` does so in a whole network.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is not excited.
        reduction (float): of the location-wise excitation, whose hidden width is
            max(⌊in_channels / groups · reduction⌋, 1), in (0, 1]. Default: 1/16.
        location (bool): whether there is a location-wise excitation, LWE. Default: True.
        magnitude (bool): whether there is a magnitude-wise excitation, MWE. Default: True.

    Shape:
        as of :class:`torch.nn.Conv2d`

    Raises:
        ValueError: an argument is not one of the above; the message names it and what it accepts.

    Example:
        >>> layer, x = WEConv2d(32, 6, 3, padding=1), torch.randn(2, 32, 9, 9)
        >>> y = layer(x)
        >>> layer.fold()
        >>> bool((layer(x) - y).abs().max() < 1e-5), [name for name, _ in layer.named_parameters()]
        (True, ['weight', 'bias'])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None,
                 reduction: float = 1 / 16, location: bool = True, magnitude: bool = True) -> None:
        check_reduction(reduction, '1/16')
        for name, value in (('location', location), ('magnitude', magnitude)):
            check_bool(name, value)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self.location = LocationExcitation(in_channels // groups, reduction) if location else None
        self.magnitude = magnitude
        self._place(device, dtype)

    def init_weights(self) -> None:
        """Kaiming-normal by fan-out, the kernel and the FCs; biases 0."""
        super().init_weights()
        if getattr(self, 'location', None) is not None:
            self.location.fc1.init_weights()
            self.location.fc2.init_weights()

    def compute_kernel(self) -> Tensor:
        """The kernel that it convolves by, Tensor[out_channels, in_channels / groups, kernel_height, kernel_width]."""
        kernel = self.weight
        if self.location is not None:
            kernel = kernel * self.location(kernel)[:, :, None, None].to(kernel.dtype)
        return excite_magnitudes(kernel) if self.magnitude else kernel

    def check_foldable(self) -> None:
        """Raise a ValueError if ``weight`` is no parameter, and computed anew before each call."""
        if 'weight' not in self._parameters:
            raise ValueError(f'a WEConv2d whose weight is computed, by a parametrization or a spectral norm, cannot be '
                             f'folded: remove that first from {self}')

    def fold(self) -> None:
        """Become the static convolution by :meth:`compute_kernel`, in place; its state dict is that of a ``Conv2d``.

        Raises:
            ValueError: as of :meth:`check_foldable`.
        """
        self.check_foldable()
        with torch.no_grad():
            self.weight.copy_(self.compute_kernel())
        self.location, self.magnitude = None, False

    def attention_modules(self) -> list[nn.Module]:
        """The FCs of the location-wise excitation."""
        return [] if self.location is None else [self.location]

    @torch.no_grad()
    def set_kernel(self, kernel: Tensor) -> None:
        """Let :meth:`compute_kernel` be ``kernel``, and yet all parts learn: LWE is 1/2 at first, MWE is inverted."""
        if self.location is not None:
            nn.init.zeros_(self.location.fc2.weight)
            nn.init.zeros_(self.location.fc2.bias)
        kernel = calm_magnitudes(kernel) if self.magnitude else kernel
        self.weight.copy_(kernel if self.location is None else 2 * kernel)

    def _is_scaled_by_weight(self) -> bool:
        return self.location is None and not self.magnitude

    def fuse_batch_norm(self, norm: nn.Module) -> bool:
        """As of any convolution; the excitation, which would see another kernel, is folded first."""
        if not self._takes_batch_norm(*self.modules()):
            return False
        self.fold()
        return super().fuse_batch_norm(norm)

    def forward(self, x: Tensor, norm: BatchNorm | None = None) -> Tensor:
        check_input(x, self.in_channels)
        return self._convolve(x, self.compute_kernel(), norm)

    def extra_repr(self) -> str:
        parts = dict(location=self.location is not None, magnitude=self.magnitude)
        return super().extra_repr() + ''.join(f', {name}=False' for name, is_there in parts.items() if not is_there)

"""Base of the layers that predict a kernel for each sample."""
from __future__ import annotations

import torch
from torch import Tensor

from ..functional.geometry import check_input
from ..functional.operator import is_left_out
from ..functional.sample_conv import sample_conv2d
from .conv_arguments import ConvArguments

torch.fx.wrap('check_input')
torch.fx.wrap('sample_conv2d')


class SampleKernelConv2d(ConvArguments):
    """Convolution of each sample by a kernel of its own, which a subclass computes in :meth:`compute_kernels`.

    Called, it takes the features and, optionally, what the convolutions of a block share, which
    :meth:`compute_kernels` takes second.
    """

    def compute_kernels(self, x: Tensor) -> Tensor:
        """The kernels of features.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            Tensor[batch, out_channels, in_channels / groups, kernel_height, kernel_width]
        """
        raise NotImplementedError

    def compute_features(self, x: Tensor) -> Tensor:
        """What is convolved, of the shape of the features: these themselves."""
        return x

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        check_input(x, self.in_channels)
        own = shared is None or is_left_out(shared)
        if not own and not self.takes_shared:
            self._refuse_shared()
        kernels = self.compute_kernels(x) if own else self.compute_kernels(x, shared)
        x, padding = self._pad(self.compute_features(x))
        return sample_conv2d(x, kernels, self.bias, stride=self.stride, padding=padding, dilation=self.dilation,
                             groups=self.groups)

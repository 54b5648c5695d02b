"""Conditionally parameterized convolution (Yang et al.: NeurIPS 2019, https://arxiv.org/abs/1904.04971)."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..compat.openmmlab import MODELS
from ..functional.geometry import check_input, check_vectors
from .average_pool import PoolsFeatures
from .conv_arguments import check_bool, check_positive_int
from .fully_connected import FullyConnected
from .mixture_conv import MixtureConv2d

torch.fx.wrap('check_input')
torch.fx.wrap('check_vectors')


class CondConvRouting(nn.Module, PoolsFeatures):
    """The routing function r(x) = sigmoid(FC(average of x)) (CondConv, §3).

    Args:
        in_channels (int): channels of the features.
        kernel_num (int): n, the number of routing weights.

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, n]
    """

    def __init__(self, in_channels: int, kernel_num: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.fc = FullyConnected(in_channels, kernel_num)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform, bias 0: what a dense layer of TensorFlow starts with, in which the authors wrote it."""
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def attention_modules(self) -> list[nn.Module]:
        """As of a layer: a backbone finds here what its blocks share."""
        return [self]

    def neutralize_attention(self) -> float:
        """Let the routing weights be 1/2 for every input, and yet learn; returns their sum, n / 2."""
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        return len(self.fc.weight) / 2

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        return self.fc(F.adaptive_avg_pool2d(x, 1)).sigmoid()


@MODELS.register_module()
class CondConv2d(MixtureConv2d):
    r"""Convolution by n kernels that are added up by routing weights (CondConv, Eq. 1 and §3).

    .. math:: y = \Big(\sum_i r_i W_i\Big) * x, \quad r = \mathrm{sigmoid}(\mathrm{FC}(\mathrm{avg}(x)))

    In the paper's networks the convolutions of a residual block share the routing weights of the block's input:
    build them with ``routing=False`` and hand each the weights of one :class:`CondConvRouting`. Elsewhere, as by
    a ``conv_cfg``, the layer routes by its own input.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is static: it is not mixed.
        kernel_num (int): n, the number of kernels ("experts"). Default: 8.
        routing (bool): whether the layer has a routing function of its own. Without one, ``forward`` needs the
            routing weights as its second argument. Default: True.
        attention (bool): whether the kernels are weighted; without, each r_i is 1, there is no routing, and the layer
            is an ordinary convolution by the sum of its kernels (ODConv, 3.1). Default: True.
        plan (str): how the mixture is executed, see :data:`dynconv_mm.functional.PLANS`. Default: 'auto'.

    Shape:
        input Tensor[batch, in_channels, height, width] and, optionally, routing weights Tensor[batch, n] in place
        of the layer's own; output Tensor[batch, out_channels, out_height, out_width], the size as of
        :class:`torch.nn.Conv2d`; batch 0 gives an empty map.

    Raises:
        ValueError: an argument is not one of the above, the message names it and what it accepts; or a layer
            without routing is called without routing weights.

    Example:
        >>> x, routing = torch.randn(2, 8, 9, 9), CondConvRouting(8, kernel_num=4)
        >>> convs = [CondConv2d(8, 8, 3, padding=1, kernel_num=4, routing=False) for _ in range(2)]
        >>> convs[1](convs[0](x, routing(x)), routing(x)).shape
        torch.Size([2, 8, 9, 9])
        >>> CondConv2d(8, 6, 3)(x).shape
        torch.Size([2, 6, 7, 7])
    """

    takes_shared = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None, kernel_num: int = 8,
                 routing: bool = True, attention: bool = True, plan: str = 'auto') -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         padding_mode, kernel_num, plan)
        for name, value in (('routing', routing), ('attention', attention)):
            check_bool(name, value)
        self.attention = attention
        self.routing = CondConvRouting(in_channels, kernel_num) if routing and attention else None
        self.init_weights()
        self._place(device, dtype)

    def init_weights(self) -> None:
        """Each kernel Kaiming-normal by fan-out, the routing as :class:`CondConvRouting`, bias 0."""
        super().init_weights()
        if self.routing is not None:
            self.routing.init_weights()

    def compute_attentions(self, x: Tensor, routing_weights: Tensor | None = None) -> dict[str, Tensor]:
        """'kernel': r, Tensor[batch, n], of features Tensor[batch, in_channels, height, width]; nothing without
        attention.

        Raises:
            ValueError: there are no routing weights, and the layer has no routing of its own.
        """
        if not self.attention:
            return {}
        if routing_weights is not None:
            check_vectors(routing_weights, self.kernel_num, 'kernel_num', 'routing_weights')
            return dict(kernel=routing_weights)
        if self.routing is None:
            raise ValueError('CondConv2d was built with routing=False and has no routing of its own: call it with '
                             'routing weights, layer(x, routing_weights), or build it with routing=True')
        return dict(kernel=self.routing(x))

    def attention_modules(self) -> list[nn.Module]:
        return [] if self.routing is None else [self.routing]

    def neutralize_attention(self) -> float:
        """Routing weights of 1/2, see :meth:`MixtureConv2d.neutralize_attention`; without a routing of its own the
        layer must get such from the :class:`CondConvRouting` that serves it, to be neutralised too."""
        if not self.attention:
            return float(self.kernel_num)
        return self.kernel_num / 2 if self.routing is None else self.routing.neutralize_attention()

    def extra_repr(self) -> str:
        without = 'routing' if self.attention else 'attention'
        return super().extra_repr() + (f', {without}=False' if self.routing is None else '')


class CondConvLinear(nn.Module):
    r"""A fully connected layer of n weight matrices that are added up by routing weights (CondConv, §3).

    .. math:: y = \Big(\sum_i r_i W_i\Big) x + b = \sum_i r_i (W_i x) + b,
        \quad r = \mathrm{sigmoid}(\mathrm{FC}(x))

    It computes the right-hand side, which makes no matrix for each sample.

    Args:
        in_features, out_features (int): sizes.
        kernel_num (int): n. Default: 8.
        attention (bool): whether the matrices are weighted; without, each r_i is 1. Default: True.

    Shape:
        input Tensor[batch, in_features], output Tensor[batch, out_features]

    Raises:
        ValueError: a size is no positive int, or ``attention`` no bool.
    """

    def __init__(self, in_features: int, out_features: int, kernel_num: int = 8, attention: bool = True) -> None:
        super().__init__()
        for name, value in (('in_features', in_features), ('out_features', out_features),
                            ('kernel_num', kernel_num)):
            check_positive_int(name, value)
        check_bool('attention', attention)
        self.weight = nn.Parameter(torch.empty(kernel_num, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.routing = CondConvRouting(in_features, kernel_num) if attention else None
        self.init_weights()

    def init_weights(self) -> None:
        """Each matrix normal with 0.01, as OpenMMLab's linear classifiers; the routing as
        :class:`CondConvRouting`; bias 0."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)
        if self.routing is not None:
            self.routing.init_weights()

    def neutralize_attention(self) -> float:
        """Routing weights of 1/2, see :meth:`MixtureConv2d.neutralize_attention`."""
        return float(len(self.weight)) if self.routing is None else self.routing.neutralize_attention()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        check_vectors(x, weight.shape[2])
        if self.routing is None:
            return F.linear(x, weight.sum(0), self.bias)
        outputs = F.linear(x, weight.flatten(0, 1)).unflatten(1, weight.shape[:2])
        y = (self.routing(x[:, :, None, None])[:, :, None] * outputs).sum(1)
        return y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        kernel_num, out_features, in_features = self.weight.shape
        without = ', attention=False' if self.routing is None else ''
        return f'{in_features}, {out_features}, kernel_num={kernel_num}{without}'

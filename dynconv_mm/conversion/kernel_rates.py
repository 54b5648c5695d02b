"""How much faster the kernels of a warm-started network have to learn."""
from __future__ import annotations

from torch import nn
from torch.func import functional_call

from ..layers.condconv import CondConvLinear
from ..layers.fdconv import FDConv2d
from ..layers.mixture_conv import MixtureConv2d
from ..layers.sample_kernel import SampleKernelConv2d


def kernel_rates(model: nn.Module, adaptive: bool = False) -> dict[str, float]:
    """By which factor the learning rate of each layer's kernels is to be multiplied after a warm start.

    Of n kernels with an attention of a each, a step of SGD moves Σ a·W_i, the kernel in effect, n·a² times as far as it
    moves the one kernel of a static layer: 1/64 as far in a 3×3 ``ODConv2d`` of one kernel, whose three sigmoids are
    1/2, and 1/256 with four. A step of Adam, whose length does not depend on gradients, moves it n·a times as far.
    With the learning rate multiplied by the inverse, and the weight decay divided by that, the network first learns
    as the static one does. Of an ``FDConv2d`` it is the rate of its coefficients; those of which a real kernel has no
    conjugate learn half as fast.

    Args:
        model (Module): whose attentions are neutral, as :func:`warm_start` leaves them. It stays as it is, whatever its
            attentions are.
        adaptive (bool): whether the optimizer is Adam or one of its kind. Default: False, SGD.

    Returns:
        dict[str, float]: by the name of the parameter; what is not here learns as it is.
    """
    rates = {}
    for name, layer in model.named_modules():
        if isinstance(layer, FDConv2d):
            rates.update((f'{name}.{key}', rate**(.5 if adaptive else 1))
                         for key, rate in layer.coefficient_rates().items())
        elif isinstance(layer, (MixtureConv2d, CondConvLinear, SampleKernelConv2d)):
            total = _neutral_total(layer)
            count = 1 if layer.weight.dim() == 4 else len(layer.weight)
            rates[f'{name}.weight'] = 1 / total if adaptive else count / total**2
    return rates


def _neutral_total(layer: nn.Module) -> float:
    """n·a, which a layer tells when it is made neutral: here with copies of its tensors in their place."""
    wrapped = _Neutralized(layer)
    tensors = {**dict(wrapped.named_parameters()), **dict(wrapped.named_buffers())}
    return functional_call(wrapped, {name: tensor.detach().clone() for name, tensor in tensors.items()}, ())


class _Neutralized(nn.Module):

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> float:
        return self.layer.neutralize_attention()

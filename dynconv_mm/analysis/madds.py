"""Multiply-adds of a model, counted by the papers' equations and not by how a layer happens to be executed.

As in the papers' tables, norms, activations and biases count nothing.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers.conv_arguments import ConvArguments

Handler = Callable[[nn.Module, Tensor, Tensor], int]


def count_madds(model: nn.Module, input_size: tuple[int, int] = (224, 224), in_channels: int = 3) -> int:
    """The multiply-adds of one image.

    Runs the model once, in eval mode; on the meta device that takes neither memory nor time.

    Args:
        model (nn.Module): takes Tensor[1, in_channels, height, width]; its layers are counted by their types,
            see :data:`HANDLERS`.
        input_size (tuple[int, int]): height and width of the image. Default: (224, 224).
        in_channels (int): its channels. Default: 3.

    Returns:
        int

    Raises:
        ValueError: the model has a dynamic convolution that :data:`HANDLERS` does not know.
    """
    counts, hooks = [], []

    def watch(module: nn.Module) -> None:
        handler = find_handler(module)
        if handler is None:
            for child in module.children():
                watch(child)
        else:
            hooks.append(module.register_forward_hook(
                lambda module, args, output: counts.append(handler(module, _last(args[0]), output))))

    watch(model)
    training = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, in_channels, *input_size, device=device))
    finally:
        for module, mode in training.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    return sum(counts)


def find_handler(module: nn.Module) -> Handler | None:
    """The handler of a module's class, or of the nearest of its bases that has one.

    Raises:
        ValueError: it is a dynamic convolution without one.
    """
    for cls in type(module).__mro__:
        if cls.__name__ in HANDLERS:
            return HANDLERS[cls.__name__]
    if isinstance(module, ConvArguments):
        raise ValueError(f'the multiply-adds of {type(module).__name__} are not known: add a handler to HANDLERS')
    return None


def _last(features: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a layer works on; heads get all maps of a backbone and take the last."""
    return features if isinstance(features, Tensor) else features[-1]


def _area(maps: Tensor) -> int:
    return maps.shape[2] * maps.shape[3]


def linear(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """A fully connected layer."""
    return module.weight.numel() * (y.numel() // y.shape[-1])


def conv2d(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """hw k² c_in c_out, without the attention and kernels of a dynamic convolution."""
    kernel_height, kernel_width = module.kernel_size
    return y.numel() * (module.in_channels // module.groups) * kernel_height * kernel_width


def _kernel_size(module: nn.Module) -> int:
    """|W|, the weights of one kernel of a layer."""
    kernel_height, kernel_width = module.kernel_size
    return module.out_channels * (module.in_channels // module.groups) * kernel_height * kernel_width


def _matrices(module: nn.Module) -> int:
    """The weights of FCs, and of 1×1 convolutions of a single position."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1)


def _attention(module: nn.Module, x: Tensor) -> int:
    """Average pooling and the FCs of an attention: all matrices of the layer but its kernels."""
    fcs = _matrices(module) - module.weight.numel()
    return _area(x) * module.in_channels + fcs if fcs else 0


def mixture(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """DyConv and CondConv: attention, n kernels added up, one convolution. A routing that layers share counts where
    it stands."""
    return conv2d(module, x, y) + _attention(module, x) + module.kernel_num * _kernel_size(module)


def routing(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """CondConv's routing function: average pooling and an FC."""
    return x.numel() + _matrices(module)


def mixture_linear(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """A CondConv of a 1×1 map: routing, n matrices added up, one product."""
    return _matrices(module) + module.weight[0].numel()


def odconv2d(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """ODConv's Eq. 3 (n = 1) and 4, with the width of the hidden vector for c_in / r."""
    attention = _attention(module, x)
    if not attention:
        return conv2d(module, x, y)
    kernel_height, kernel_width = module.kernel_size
    weights = _kernel_size(module)
    scaling = 2 * weights if module.kernel_num == 1 else weights + 2 * module.kernel_num * weights
    return conv2d(module, x, y) + attention + kernel_height * kernel_width * module.in_channels + scaling


def dcd_conv2d(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """DCD's Eq. 6 to 9: the branch (3.4), Λ by min(|W|, hw c_out) (3.3), the residual in its cheapest order."""
    count = conv2d(module, x, y)
    if module.fc is None:
        return count
    count += _area(x) * module.in_channels + sum(
        parameter.numel() for name, parameter in module.named_parameters() if name.startswith('fc'))
    if module.fc_scale is not None:
        count += min(_kernel_size(module), y.numel())
    if module.fusion is None:
        return count
    return count + module.blocks * _dcd_residual(module, x, y)


def _dcd_residual(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """One block of PΦQᵀ: added to the kernel, or applied to the features."""
    in_channels, out_channels = module.in_channels // module.blocks, module.out_channels // module.blocks
    rank, elements = module.latent_channels, module.kernel_size[0] * module.kernel_size[1]
    if module.fusion == 'kernel':  # Eq. 8
        return rank * rank * min(out_channels, elements) + out_channels * rank * elements
    if module.fusion == 'joint':  # Eq. 9
        taps = len(module.r.weight)
        core = rank * rank * taps
        as_kernel = in_channels * (core + out_channels * taps * (rank + elements))
        on_features = rank * in_channels * _area(x) + _area(y) * (rank * taps * elements + core + rank * out_channels)
        return min(as_kernel, on_features)
    as_kernel = rank * rank * min(in_channels, out_channels) + rank * in_channels * out_channels
    area = _area(y)
    on_features = rank * rank * min(area, in_channels, out_channels) + area * rank * (in_channels + out_channels)
    return min(as_kernel, on_features)


def dcd_classifier(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """A DCD of a 1×1 map: all matrices once, Λ and Φ."""
    return _matrices(module) + y.shape[1] + module.latent_channels**2


def involution2d(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Involution's Eq. 4 to 6, and DCDC's Eq. 5 and 7: the convolutions that predict kernels, all of them at the
    output's size, and the application of the kernels."""
    kernel_height, kernel_width = module.kernel_size
    return _area(y) * _matrices(module) + y.numel() * kernel_height * kernel_width


def gsi(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """DCDC's Eq. 8 and 10: the 1×1 convolutions before and behind, the FC that puts out a kernel, and the convolution
    by that; not the averages, of which DCDC's tables say nothing."""
    hidden_channels = module.conv1.out_channels
    count = _area(x) * module.conv1.conv.weight.numel() + _area(y) * module.conv2.conv.weight.numel()
    if module.fc is not None:
        count += module.fc.weight.numel()
    return count + _area(y) * hidden_channels**2 * module.kernel_size**2


def dcdc2d(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """DCDC's Eq. 11: both branches, or what stands for the second."""
    count = involution2d(module.lsa, x, y)
    return count if module.gsi is None else count + find_handler(module.gsi)(module.gsi, x, y)


def squeeze_excitation(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """SE: average pooling, two FCs, and the scaling of the features."""
    return 2 * x.numel() + _matrices(module)


def cbam(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """CBAM: an SE whose FCs run twice, and averages over channels, a convolution over places, and their scaling;
    maxima cost no multiply-adds."""
    return 4 * x.numel() + 2 * _matrices(module.mlp) + _area(x) * module.spatial_conv.weight.numel()


def eca(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """ECA: average pooling, a convolution along the channels, and the scaling of the features."""
    return 2 * x.numel() + x.shape[1] * module.conv.weight.numel()


#: How layers are counted, by the name of their class; a handler counts all that the module holds
HANDLERS: dict[str, Handler] = {
    'Conv2d': conv2d,
    'StaticConv2d': conv2d,
    'Linear': linear,
    'PointwiseFC': linear,
    'CondConv2d': mixture,
    'CondConvRouting': routing,
    'CondConvLinear': mixture_linear,
    'DyConv2d': mixture,
    'ODConv2d': odconv2d,
    'DCDConv2d': dcd_conv2d,
    'DCDLinearClsHead': dcd_classifier,
    'Involution2d': involution2d,
    'DCDC2d': dcdc2d,
    'GSI': gsi,
    'SELayer': squeeze_excitation,
    'CBAM': cbam,
    'ECALayer': eca,
}

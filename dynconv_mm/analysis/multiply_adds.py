"""Multiply-adds of a model, counted by the papers' equations and not by how a layer happens to be executed.

As in the papers' tables, norms, activations and biases count nothing.
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..eval_mode import eval_mode
from ..layers.conv_arguments import ConvArguments

#: What multiply-adds are spent on: static convolutions and FCs; what dynamic layers take to predict kernels or
#: attentions, to put kernels together (or to correct features, where that is cheaper), and to apply them.
KINDS = ('conv', 'linear', 'attention', 'mixing', 'dynamic_conv')
Handler = Callable[[nn.Module, Tensor, Tensor], 'Counter[str]']


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
        ValueError: the model has a layer that :data:`HANDLERS` does not know.
    """
    device = next(model.parameters(), torch.empty(0)).device
    counts = count_by_layer(model, lambda: model(torch.zeros(1, in_channels, *input_size, device=device)))
    return sum(sum(count.values()) for count in counts.values())


def count_by_layer(model: nn.Module, run: Callable[[], object]) -> dict[str, Counter[str]]:
    """The multiply-adds of each layer.

    Args:
        model (nn.Module): its layers are counted by their types, see :data:`HANDLERS`.
        run (Callable[[], object]): runs the model, or parts of it; called once, in eval mode without gradients. What
            runs several times counts several times.

    Returns:
        dict[str, Counter[str]]: by the layer's name in the model, how many of each of :data:`KINDS`; 0 of a layer
        that was not run.

    Raises:
        ValueError: the model has a layer that :data:`HANDLERS` does not know.
    """
    counts: dict[str, Counter[str]] = {}
    hooks = []
    for name, module, handler in counted_layers(model):
        counts[name] = Counter()
        hooks.append(module.register_forward_hook(
            lambda module, args, output, count=counts[name], handler=handler:
            count.update(handler(module, _last(args[0]), output))))
    try:
        with eval_mode(model), torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def counted_layers(model: nn.Module) -> list[tuple[str, nn.Module, Handler]]:
    """The outermost layers of a model that have a handler, each once: name, module, handler.

    Raises:
        ValueError: a layer has none.
    """
    found, seen = [], set()

    def visit(name: str, module: nn.Module) -> None:
        if module in seen:
            return
        seen.add(module)
        handler = find_handler(module)
        if handler is not None:
            found.append((name, module, handler))
            return
        for child_name, child in module.named_children():
            visit(f'{name}.{child_name}' if name else child_name, child)

    visit('', model)
    return found


def find_handler(module: nn.Module) -> Handler | None:
    """The handler of a module's class, or of the nearest of its bases that has one.

    Raises:
        ValueError: it has none but is a dynamic convolution, or has weights of its own that are no norm's.
    """
    for cls in type(module).__mro__:
        if cls.__name__ in HANDLERS:
            return HANDLERS[cls.__name__]
    if isinstance(module, (_NormBase, nn.LayerNorm)):
        return None
    if isinstance(module, ConvArguments) or any(weight.dim() > 1 for weight in module.parameters(recurse=False)):
        raise ValueError(f'the multiply-adds of {type(module).__name__} are not known: add a handler to HANDLERS in '
                         f'{__name__}')
    return None


def _last(features: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a layer works on; heads get all maps of a backbone and take the last."""
    return features if isinstance(features, Tensor) else features[-1]


def _area(maps: Tensor) -> int:
    return maps.shape[2] * maps.shape[3]


def linear(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """A fully connected layer."""
    return Counter(linear=module.weight.numel() * (y.numel() // y.shape[-1]))


def no_product(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """An embedding, whose rows are looked up, and cells, which the layers that take them count."""
    return Counter()


def conv2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """hw k² c_in c_out."""
    return Counter(conv=_convolution(module, y))


def conv_transpose2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """hw k² c_in c_out, of the input's size."""
    return Counter(conv=_area(x) * len(x) * module.weight.numel())


def deform_conv2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """DCN: a convolution, and that which predicts its offsets where the layer has one; not the interpolation."""
    count = conv2d(module, x, y)
    if hasattr(module, 'conv_offset'):
        count['conv'] += _area(y) * len(y) * module.conv_offset.weight.numel()
    return count


def _convolution(module: nn.Module, y: Tensor) -> int:
    """hw k² c_in c_out, without the attention and kernels of a dynamic convolution."""
    return y.numel() * _kernel_size(module) // module.out_channels


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


def mixture(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """DyConv and CondConv: attention, n kernels added up, one convolution. A routing that layers share counts where
    it stands. Without attention, the sum of the kernels is one."""
    if not getattr(module, 'attention', True):
        return conv2d(module, x, y)
    return Counter(dynamic_conv=_convolution(module, y), attention=_attention(module, x),
                   mixing=module.kernel_num * _kernel_size(module))


def routing(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """CondConv's routing function, WeightNet's reduction: average pooling and an FC."""
    return Counter(attention=x.numel() + _matrices(module))


def mixture_linear(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """A CondConv of a 1×1 map: routing, n matrices added up, one product."""
    if module.routing is None:
        return Counter(linear=module.weight[0].numel())
    return Counter(attention=_matrices(module.routing), mixing=module.weight.numel(),
                   dynamic_conv=module.weight[0].numel())


def odconv2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """ODConv's Eq. 3 (n = 1) and 4, with the width of the hidden vector for c_in / r."""
    attention = _attention(module, x)
    if not attention:
        return conv2d(module, x, y)
    return Counter(dynamic_conv=_convolution(module, y), attention=attention, mixing=_odconv_mixing(module))


def _odconv_mixing(module: nn.Module) -> int:
    """The last term of Eq. 3 and 4: α_s, α_c and α_f are multiplied with each other one after the other, the result
    with the kernels, and these with α_w. Of an attention left out by choice nothing is counted; α_s of a 1×1 kernel
    and α_f of a depthwise one are factors of length 1, as the equations have them."""
    heads = module.attention.head_channels
    kernel_height, kernel_width = module.kernel_size
    area, filters = kernel_height * kernel_width, module.out_channels // module.groups
    lengths = [length for length, chosen in (
        (area, area == 1 or 'spatial' in heads), (module.in_channels, 'channel' in heads),
        (filters, filters == 1 or 'filter' in heads)) if chosen]
    products = 0
    for last in range(1, len(lengths)):
        products += math.prod(lengths[:last + 1])
    if not module.share_attention:
        products *= module.kernel_num
    return products + (bool(lengths) + ('kernel' in heads)) * module.kernel_num * _kernel_size(module)


def dcd_conv2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """DCD's Eq. 6 to 9: the branch (3.4), Λ by min(|W|, hw c_out) (3.3), the residual in its cheapest order."""
    if module.fc is None:
        return conv2d(module, x, y)
    branch = sum(parameter.numel() for name, parameter in module.named_parameters() if name.startswith('fc'))
    count = Counter(dynamic_conv=_convolution(module, y), attention=_area(x) * module.in_channels + branch)
    if module.fc_scale is not None:
        count['mixing'] += min(_kernel_size(module), y.numel())
    if module.fusion is not None:
        count['mixing'] += module.blocks * _dcd_residual(module, x, y)
    return count


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


def dcd_classifier(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """A DCD of a 1×1 map: all matrices once, Λ and Φ."""
    branch = sum(parameter.numel() for name, parameter in module.named_parameters()
                 if name.startswith('fc') and parameter.dim() > 1)
    product = module.cls.weight.numel()
    residual = _matrices(module) - product - branch + module.latent_channels**2
    return Counter(dynamic_conv=product, attention=branch, mixing=residual + y.shape[1])


def involution2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """Involution's Eq. 4 to 6, and DCDC's Eq. 5 and 7: the convolutions that predict kernels, all of them at the
    output's size, and the application of the kernels."""
    kernel_height, kernel_width = module.kernel_size
    return Counter(attention=_area(y) * _matrices(module), dynamic_conv=y.numel() * kernel_height * kernel_width)


def gsi(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """DCDC's Eq. 8 and 10: the 1×1 convolutions before and behind, the FC that puts out a kernel, and the convolution
    by that; not the averages, of which DCDC's tables say nothing."""
    count = Counter(conv=_area(x) * module.conv1.conv.weight.numel() + _area(y) * module.conv2.conv.weight.numel())
    convolution = _area(y) * module.conv1.out_channels**2 * module.kernel_size**2
    if module.fc is None:
        return count + Counter(conv=convolution)
    return count + Counter(attention=module.fc.weight.numel(), dynamic_conv=convolution)


def dcdc2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """DCDC's Eq. 11: both branches, or what stands for the second."""
    count = involution2d(module.lsa, x, y)
    return count if module.gsi is None else count + find_handler(module.gsi)(module.gsi, x, y)


def ddf2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """DDF: the convolution that predicts S, averages and FCs that predict F, their products, and the application of
    these; of a sum of both, that of either."""
    spatial, channel = _matrices(module.spatial_branch), _matrices(module.channel_branch)
    products = y.numel() * module.kernel_size[0] * module.kernel_size[1]
    return Counter(attention=_area(y) * spatial + x.numel() + channel, mixing=products, dynamic_conv=products)


def pairwise_self_attention2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """SAN: queries, keys, positions and values, the convolutions that make weights of each pair, and the application
    of these."""
    kernel_height, kernel_width = module.kernel_size
    once = _area(x) * (_matrices(module.conv2) + _matrices(module.conv_p)) + _area(y) * _matrices(module.conv1)
    pairs = _area(y) * kernel_height * kernel_width
    return Counter(conv=_area(x) * _matrices(module.conv3), attention=once + pairs * _matrices(module.conv_w),
                   dynamic_conv=pairs * module.out_channels)


def local_relation2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """LR-Net: queries, keys, a product or difference for each pair, the geometry prior, the application of the
    weights, and the convolution behind."""
    elements = module.kernel_size[0] * module.kernel_size[1]
    scalars = module.in_channels // module.group_channels
    attention = _area(x) * _matrices(module.key) + _area(y) * (_matrices(module.query) + elements * scalars) \
        + elements * _matrices(module.geometry_prior)
    return Counter(conv=_area(y) * _matrices(module.proj), attention=attention, dynamic_conv=y.numel() * elements)


def stand_alone_self_attention2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """SASA: queries, keys and values, the products of queries with keys and with embeddings, and the application of
    the weights, all of them at the input's size."""
    kernel_height, kernel_width = module.kernel_size
    products = x.numel() * kernel_height * kernel_width
    return Counter(conv=_area(x) * _matrices(module.value),
                   attention=_area(x) * (_matrices(module.query) + _matrices(module.key)) + products
                   + x.numel() * (kernel_height + kernel_width) // 2, dynamic_conv=products)


def attention_stem(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """SASA's stem: queries, keys and values, these mixed, products with the keys of a block, and the application."""
    products = y.numel() * module.block_size**2
    return Counter(conv=_area(y) * _matrices(module.value), mixing=module.mixtures * y.numel(),
                   attention=_area(y) * (_matrices(module.query) + _matrices(module.key)) + products,
                   dynamic_conv=products)


def cgc2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """Context gating: averages, the FC of each channel's context, those of either branch, and a product for each
    element of the kernel."""
    area, hidden = module.gd.weight.shape
    attention = _area(x) * module.in_channels + hidden * (
        2 * area * module.in_channels + area * module.out_channels
        + module.ci.weight.shape[1] * module.out_channels)
    return Counter(dynamic_conv=_convolution(module, y), attention=attention, mixing=_kernel_size(module))


def fdconv2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """FDConv: averages, FCs and local attention; the transform of a kernel, and a product for each attention and
    element; the convolution that weights bands, the transforms of the features and of three low passes, and their
    weighting. Of N numbers a real transform takes N log₂ N multiply-adds."""
    if module.attention is None:
        return conv2d(module, x, y)
    area, (rows, columns) = _area(x), module.matrix_size
    local = module.local_attention.conv.weight.numel() * module.in_channels
    count = Counter(dynamic_conv=_convolution(module, y), attention=x.numel() + _matrices(module.attention) + local,
                    mixing=_transform(rows, columns) + (len(module.attention.head_channels) + 1) * _kernel_size(module))
    if module.band_conv is not None:
        bands = module.band_conv.out_channels
        count['attention'] += area * module.band_conv.weight.numel()
        count['mixing'] += module.in_channels * (1 + bands) * _transform(x.shape[2], x.shape[3]) + bands * x.numel()
    return count


def _transform(rows: int, columns: int) -> int:
    return round(rows * columns * math.log2(rows * columns))


def weightnet2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """WeightNet: average pooling and FCs, each learned kernel scaled. A reduction that layers share counts where it
    stands."""
    pooling = 0 if module.routing is None else _area(x) * module.in_channels
    return Counter(dynamic_conv=_convolution(module, y), mixing=module.weight.numel(),
                   attention=pooling + _matrices(module) - module.weight.numel())


def kw_conv2d(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """KernelWarehouse: average pooling and FCs, the mixtures of cells, one convolution."""
    return Counter(dynamic_conv=_convolution(module, y), attention=_area(x) * module.in_channels + _cell_logits(module),
                   mixing=_mixtures(module))


def kw_linear(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """The same of a fully connected layer."""
    return Counter(dynamic_conv=module.in_features * module.out_features, attention=_cell_logits(module),
                   mixing=_mixtures(module))


def _cell_logits(module: nn.Module) -> int:
    """FCs of an attention over cells; that which combines bases runs for each mixture."""
    attention = module.attention
    fcs = attention.fc1.weight.numel() + attention.fc2.weight.numel()
    return fcs + (attention.mixture_num * attention.fc3.weight.numel() if attention.bases else 0)


def _mixtures(module: nn.Module) -> int:
    """Each of m mixtures of all cells."""
    return module.attention.mixture_num * module.cells.numel()


def squeeze_excitation(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """SE: average pooling, two FCs, and the scaling of the features."""
    return Counter(attention=2 * x.numel() + _matrices(module))


def cbam(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """CBAM: an SE whose FCs run twice, and averages over channels, a convolution over places, and their scaling;
    maxima cost no multiply-adds."""
    return Counter(attention=4 * x.numel() + 2 * _matrices(module.mlp) + _area(x) * module.spatial_conv.weight.numel())


def eca(module: nn.Module, x: Tensor, y: Tensor) -> Counter[str]:
    """ECA: average pooling, a convolution along the channels, and the scaling of the features."""
    return Counter(attention=2 * x.numel() + x.shape[1] * module.conv.weight.numel())


#: How layers are counted, by the name of their class; a handler counts all that the module holds
HANDLERS: dict[str, Handler] = {
    'Conv2d': conv2d,
    'ConvTranspose2d': conv_transpose2d,
    'DeformConv2d': deform_conv2d,
    'ModulatedDeformConv2d': deform_conv2d,
    'StaticConv2d': conv2d,
    'Linear': linear,
    'Embedding': no_product,
    'FullyConnected': linear,
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
    'DDFConv2d': ddf2d,
    'PairwiseSelfAttention2d': pairwise_self_attention2d,
    'LocalRelation2d': local_relation2d,
    'StandAloneSelfAttention2d': stand_alone_self_attention2d,
    'AttentionStem': attention_stem,
    'CGConv2d': cgc2d,
    'FDConv2d': fdconv2d,
    'LSConv2d': involution2d,
    'WeightNetConv2d': weightnet2d,
    'WeightNetReduction': routing,
    'KWConv2d': kw_conv2d,
    'KWLinear': kw_linear,
    'KernelWarehouse': no_product,
    'SELayer': squeeze_excitation,
    'CBAM': cbam,
    'ECALayer': eca,
}

"""The released networks in plain torch, written from their equations, to hold this package's training against.

A network is a function of its weights, which go by the names of the released checkpoints, and of images. No layer of
this package is used. What stands where in a network is written here again; which of its convolutions are dynamic, and
how many channels they have, is read from the names and shapes of the weights. Kernels of their own are built for every
sample, batch norms are averages and variances, and statistics are updated as the weights are read.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

MOMENTUM, EPS = 0.1, 1e-5  # of batch norms
MOBILENET_STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of stages 1 to 7
GROUP_CHANNELS = 16  # of involution and DCDC
WINDOW = 7  # of involution's and the attentions' blocks


@dataclass(frozen=True)
class Weights:
    """The weights below a name, and how the network runs.

    Args:
        tensors (dict[str, Tensor]): parameters, and the statistics of batch norms.
        training (bool): whether batch norms take the statistics of the batch.
        temperature (float): τ of the attentions that have one.
        dropout (float): before the classifier, in training.
        cells (dict[str, tuple[Tensor, int]]): of KernelWarehouse's layers by name, the warehouse and their first cell.
        name (str): what is before the names.
    """

    tensors: dict[str, Tensor]
    training: bool = True
    temperature: float = 1.
    dropout: float = 0.
    cells: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    name: str = ''

    def at(self, name: object) -> Weights:
        """Those below a further name."""
        return replace(self, name=f'{self.name}{name}.')

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.name + name]

    def __contains__(self, name: str) -> bool:
        return self.name + name in self.tensors

    def find(self, name: str) -> Tensor | None:
        """One that there may be."""
        return self.tensors.get(self.name + name)

    def has(self, name: object) -> bool:
        """Whether there are any below a further name."""
        return any(key.startswith(f'{self.name}{name}.') for key in self.tensors)

    def numbered(self) -> Iterator[Weights]:
        """Those below 0, 1, … as long as there are any."""
        number = 0
        while self.has(number):
            yield self.at(number)
            number += 1


# What all layers are made of.


def averages(x: Tensor) -> Tensor:
    """Global average pooling, Tensor[batch, channels]."""
    return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def softmax(z: Tensor, dim: int) -> Tensor:
    e = torch.exp(z - z.detach().amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)


def hsig(z: Tensor) -> Tensor:
    """DCD's, from 0 to 2."""
    return (z + 3).clamp(0, 6) / 3


def linear(weights: Weights, x: Tensor) -> Tensor:
    """Of Tensor[batch, features]; an FC may be stored as a 1×1 convolution."""
    y = x @ weights['weight'].flatten(1).T
    return y + weights['bias'] if 'bias' in weights else y


def batch_norm(weights: Weights, x: Tensor) -> Tensor:
    """Over all dimensions but the second."""
    dims = [0, *range(2, x.dim())]
    mean, var = weights['running_mean'], weights['running_var']
    if weights.training:
        count = x.numel() // x.shape[1]
        mean, var = x.mean(dims), ((x - x.mean(dims, keepdim=True))**2).mean(dims)
        with torch.no_grad():
            weights['running_mean'].lerp_(mean, MOMENTUM)
            weights['running_var'].lerp_(var * count / (count - 1), MOMENTUM)
    shape = (-1, *(1, ) * (x.dim() - 2))
    mean, var, scale, shift = (value.reshape(shape) for value in (mean, var, weights['weight'], weights['bias']))
    return (x - mean) / torch.sqrt(var + EPS) * scale + shift


def static(x: Tensor, kernel: Tensor, stride: int = 1, bias: Tensor | None = None) -> Tensor:
    """A convolution that keeps the size, by Tensor[out, in / groups, height, width]."""
    return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2, groups=x.shape[1] // kernel.shape[1])


def own_kernels(x: Tensor, kernels: Tensor, stride: int = 1) -> Tensor:
    """Each sample convolved by its own of the kernels."""
    return torch.cat([static(sample[None], kernel, stride) for sample, kernel in zip(x, kernels)])


def windows(x: Tensor, size: int, stride: int = 1) -> Tensor:
    """The neighbours of each position, zeros beyond the edge: Tensor[batch, channels, size², out_height, out_width]."""
    out_height, out_width = (-(-length // stride) for length in x.shape[2:])
    return F.unfold(x, size, 1, size // 2, stride).view(len(x), x.shape[1], size * size, out_height, out_width)


def apply_windows(values: Tensor, kernels: Tensor) -> Tensor:
    """Neighbours added up by kernels that differ from position to position, the same for a group of channels.

    Args:
        values (Tensor[batch, channels, size², height, width]): neighbours.
        kernels (Tensor[batch, groups, size², height, width]): their weights.
    """
    return (values.unflatten(1, (kernels.shape[1], -1)) * kernels[:, :, None]).sum(3).flatten(1, 2)


# The layers, by their equations.


def odconv(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """y = Σ_i (α_wi ⊙ α_fi ⊙ α_ci ⊙ α_si ⊙ W_i) * x (ODConv, Eq. 2)."""
    kernels, attention = weights['weight'], weights.at('attention')
    hidden = batch_norm(attention.at('bn'), linear(attention.at('fc'), averages(x))).relu()

    def logits(name: str) -> Tensor | None:
        return linear(attention.at(name), hidden) / weights.temperature if attention.has(name) else None

    spatial, channel, filter_, kernel = (logits(f'{name}_fc') for name in ('spatial', 'channel', 'filter', 'kernel'))
    alpha = x.new_ones(len(x), 1) if kernel is None else softmax(kernel, 1)
    mixed = torch.stack([sum(a * w for a, w in zip(sample, kernels)) for sample in alpha])
    groups = x.shape[1] // kernels.shape[2]
    if channel is not None:
        own = sigmoid(channel).view(len(x), groups, -1).repeat_interleave(kernels.shape[1] // groups, 1)
        mixed = mixed * own[:, :, :, None, None]
    if filter_ is not None:
        mixed = mixed * sigmoid(filter_)[:, :, None, None, None]
    if spatial is not None:
        mixed = mixed * sigmoid(spatial).view(-1, 1, 1, *kernels.shape[3:])
    return own_kernels(x, mixed, stride)


def mixture(weights: Weights, alpha: Tensor, x: Tensor, stride: int) -> Tensor:
    """y = (Σ_i α_i W_i) * x."""
    return own_kernels(x, torch.stack([sum(a * w for a, w in zip(sample, weights['weight'])) for sample in alpha]),
                       stride)


def dyconv(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """α = softmax(FC(ReLU(FC(GAP x))) / τ) (DyConv, Eq. 5)."""
    hidden = linear(weights.at('attention.fc1'), averages(x)).relu()
    return mixture(weights, softmax(linear(weights.at('attention.fc2'), hidden) / weights.temperature, 1), x, stride)


def condconv(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """α = sigmoid(FC(GAP x)), x the block's input where a block's convolutions share it (CondConv, Section 3)."""
    route = linear(weights.at('routing.fc'), averages(x)) if shared is None else shared
    return mixture(weights, sigmoid(route), x, stride)


def weightnet(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """W' = grouped FC(sigmoid(FC(FC(GAP x)))) (WeightNet)."""
    reduced = linear(weights.at('routing.fc'), averages(x)) if shared is None else shared
    activations, kernels = sigmoid(linear(weights.at('fc'), reduced)), weights['weight']
    each = len(kernels)
    activations = activations.view(len(x), -1, each)
    segments = kernels.reshape(each, activations.shape[1], -1)
    own = torch.einsum('bse,esj->bsj', activations, segments).reshape(len(x), *kernels.shape[1:])
    return own_kernels(x, own, stride)


def kernel_warehouse(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """Each part of a kernel is Σ_j α_j E_j over all cells, α = (1 − τ) z / (Σ|z| + 10⁻³) + τ β (KernelWarehouse, Eq. 2
    and 3), for as many cells as parts, or a multiple of that."""
    (cells, first), attention = weights.cells[weights.name], weights.at('attention')
    hidden = batch_norm(attention.at('norm1'), linear(attention.at('fc1'), averages(x))).relu()
    z = linear(attention.at('fc2'), hidden).unflatten(1, (-1, len(cells) + 1))
    size = 1 if weights.name.endswith('downsample.0.') else 3
    parts, columns = z.shape[1], x.shape[1] // cells.shape[2]
    beta = torch.eye(len(cells) + 1, dtype=x.dtype)[first:first + parts]
    alpha = (1 - weights.temperature) * z / (z.abs().sum(2, keepdim=True) + 1e-3) + weights.temperature * beta
    mixed = (alpha[:, :, :-1] @ cells.flatten(1)).view(
        len(x), size, size, parts // columns // size**2, columns, *cells.shape[1:3])  # by place, rows and columns
    return own_kernels(x, mixed.permute(0, 3, 5, 4, 6, 1, 2).flatten(3, 4).flatten(1, 2), stride)


def resnet_warehouses(weights: Weights) -> dict[str, tuple[Tensor, int]]:
    """The warehouse of each layer of a ResNet of basic blocks, one a stage, and the first of the layer's own cells.

    A stage's first convolution and its shortcut belong to the stage before; parts are counted through block by block.
    """
    found, counts = {}, [0] * 4
    for stage in (1, 2, 3, 4):
        for number, block in enumerate(weights.at(f'layer{stage}').numbered()):
            for name in ('conv1', 'conv2', 'downsample.0'):
                layer = block.at(name)
                if layer.has('attention'):
                    before = number == 0 and name != 'conv2' and stage > 1
                    index = stage - 1 - before
                    cells = weights[f'warehouse_manager.weights.{index}']
                    found[layer.name] = cells, counts[index]
                    counts[index] += len(layer['attention.fc2.weight']) // (len(cells) + 1)
    return found


def dcd_coefficients(weights: Weights, pooled: Tensor) -> tuple[Tensor, Tensor]:
    """Λ, Tensor[batch, out], and Φ, Tensor[batch, L, L]."""
    z = linear(weights.at('fc.0'), pooled)
    z = z * hsig(linear(weights.at('fc.1.fc.0'), z))
    phi = linear(weights.at('fc_phi'), z)
    return hsig(linear(weights.at('fc_scale'), z)), phi.unflatten(1, (math.isqrt(phi.shape[1]), -1))


def dcd_fuse(weights: Weights, latent: Tensor, phi: Tensor) -> Tensor:
    """v = BN(Φ u) + u with u = BN(Qᵀx), Tensor[batch, L, positions]."""
    u = batch_norm(weights.at('bn1'), latent)
    return batch_norm(weights.at('bn2'), phi @ u) + u


def dcd(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """y = Λ W₀ * x + P v, as released (DCD, Eq. 6)."""
    prefix = 'conv_' if weights.has('conv_q') else ''
    size = math.isqrt(weights['fc.0.weight'].shape[1] // x.shape[1])
    scale, phi = dcd_coefficients(weights, F.adaptive_avg_pool2d(x, size).flatten(1))
    y = static(x, weights['conv.weight'], stride)
    u = static(x, weights[f'{prefix}q.weight'], stride).flatten(2)
    residual = weights[f'{prefix}p.weight'].flatten(1) @ dcd_fuse(weights, u, phi)
    return scale[:, :, None, None] * y + residual.view(y.shape)


def pointwise(weights: Weights, x: Tensor, stride: int = 1) -> Tensor:
    """A 1×1 convolution."""
    return static(x, weights['weight'], stride, weights.find('bias'))


def involution(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """Kernels from 1×1 convolutions of the averages over the stride (Involution, Eq. 4 to 6)."""
    hidden = pointwise(weights.at('conv1.conv'), F.avg_pool2d(x, stride) if stride > 1 else x)
    kernels = pointwise(weights.at('conv2.conv'), batch_norm(weights.at('conv1.bn'), hidden).relu())
    kernels = kernels.unflatten(1, (x.shape[1] // GROUP_CHANNELS, -1))
    return apply_windows(windows(x, math.isqrt(kernels.shape[2]), stride), kernels)


def dcdc(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """Local spatial-aware filtering and global similarity-inspired filtering added up (DCDC, Eq. 7 to 11)."""
    lsa, gsi = weights.at('lsa'), weights.at('gsi')
    hidden = F.avg_pool2d(x, stride) if stride > 1 else x
    for number in (1, 2):
        hidden = batch_norm(lsa.at(f'dw{number}.bn'), static(hidden, lsa[f'dw{number}.conv.weight']))
        hidden = pointwise(lsa.at(f'conv{number}.conv'), hidden)
        if number == 1:
            hidden = batch_norm(lsa.at('conv1.bn'), hidden).relu()
    kernels = hidden.unflatten(1, (x.shape[1] // GROUP_CHANNELS, -1))
    local = apply_windows(windows(x, WINDOW, stride), kernels)

    reduced = pointwise(gsi.at('conv1.conv'), x).relu()
    kernels = linear(gsi.at('fc'), averages(reduced)).view(len(x), reduced.shape[1], reduced.shape[1], 1, 1)
    similar = pointwise(gsi.at('conv2.conv'), own_kernels(reduced, kernels, stride))
    y = local + batch_norm(gsi.at('conv2.bn'), similar)
    return y + weights['bias'][:, None, None] if 'bias' in weights else y


def cgc(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """W ⊙ sigmoid(a gate of the input channels + one of the output channels) (Context-gated convolution)."""
    kernel = weights['weight']
    context = F.adaptive_avg_pool2d(x, kernel.shape[2:]).flatten(2) @ weights['ce.weight'].T
    inputs = batch_norm(weights.at('ce_bn'), context).relu() @ weights['gd.weight'].T
    hidden = batch_norm(weights.at('ci_bn2'), context).relu()
    hidden = hidden.unflatten(1, (-1, weights['ci.weight'].shape[1]))
    joined = batch_norm(weights.at('ci_bn'), (weights['ci.weight'] @ hidden).flatten(1, 2))
    outputs = joined.relu() @ weights['gd2.weight'].T
    gates = sigmoid(inputs[:, None] + outputs[:, :, None]).unflatten(3, kernel.shape[2:])
    return own_kernels(x, kernel * gates, stride)


def we(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """The kernel excited by its own averages and by its magnitudes (Weight excitation, Eq. 1 to 4)."""
    kernel = weights['weight']
    hidden = linear(weights.at('location.fc1'), averages(kernel)).relu()
    kernel = kernel * sigmoid(linear(weights.at('location.fc2'), hidden))[:, :, None, None]
    limit = 1.1 * kernel.detach().abs().max()
    return static(x, limit / 2 * torch.log((1 + kernel / limit) / (1 - kernel / limit)), stride)


def standardise(filters: Tensor) -> Tensor:
    """Over the elements of a filter, the third dimension, with the unbiased standard deviation."""
    deviations = filters - filters.mean(2, keepdim=True)
    return deviations / (torch.sqrt((deviations**2).sum(2, keepdim=True) / (filters.shape[2] - 1)) + 1e-10)


@functools.cache
def frequency_groups(rows: int, columns: int, count: int) -> Tensor:
    """Which of so many groups a matrix's Fourier coefficients are in, Tensor[rows, columns // 2 + 1]: by the distance
    of their frequency from 0, those at the same distance by row and column."""
    distances = [(min(row, rows - row) * columns)**2 + (column * rows)**2  # in whole numbers
                 for row in range(rows) for column in range(columns // 2 + 1)]
    groups = torch.empty(len(distances), dtype=torch.long)
    for place, index in enumerate(sorted(range(len(distances)), key=lambda index: (distances[index], index))):
        groups[index] = place * count // len(distances)
    return groups.view(rows, -1)


def weighted_bands(x: Tensor, gates: Tensor) -> Tensor:
    """Σ_b g_b ⊙ (x_b − x_b+1) + x_3, x_b+1 what a low pass leaves of x_b (FDConv, Eq. 8 to 10)."""
    y, spectrum = 0, torch.fft.rfft2(x)
    frequencies = torch.maximum(torch.fft.fftfreq(64).abs()[:, None], torch.arange(33) / 64)
    for band, kept in enumerate((frequencies < 1 / 4, frequencies <= 1 / 8, frequencies <= 1 / 16)):
        kept = F.interpolate(kept[None, None].to(x.dtype), spectrum.shape[2:], mode='nearest')
        low = torch.fft.irfft2(spectrum * kept, x.shape[2:])
        y, x, spectrum = y + gates[:, band:band + 1] * (x - low), low, spectrum * kept
    return y + x


def fdconv(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """A kernel of groups of Fourier coefficients that are weighted, and then each of its elements; the bands of the
    features are weighted before a 3×3 convolution (FDConv, Eq. 3 to 10)."""
    attention, coefficients, pooled = weights.at('attention'), weights['dft_weight'], averages(x)
    hidden = batch_norm(attention.at('bn'), linear(attention.at('fc'), pooled)).relu()
    hidden = attention['relu.scale'] * hidden**2 + attention['relu.bias']
    channel, filter_, kernel = (2 * sigmoid(linear(attention.at(f'{name}_fc'), hidden))
                                for name in ('channel', 'filter', 'kernel'))
    inputs, outputs, size = channel.shape[1], filter_.shape[1], coefficients.shape[0] // filter_.shape[1]
    groups = frequency_groups(outputs * size, inputs * size, kernel.shape[1])
    spectra = torch.complex(coefficients[..., 0], coefficients[..., 1]) * (min(inputs, outputs) // 2)
    kernels = torch.fft.irfft2(kernel[:, groups] * spectra, (outputs * size, inputs * size))
    kernels = kernels.view(-1, outputs, size, inputs, size).transpose(2, 3)
    local = weights.at('local_attention')
    deviations = pooled - pooled.mean(1, keepdim=True)
    normed = deviations / torch.sqrt((deviations**2).mean(1, keepdim=True) + EPS)
    normed = normed * local['norm.weight'] + local['norm.bias']
    taps = F.conv1d(normed[:, None], local['conv.weight'], padding=local['conv.weight'].shape[2] // 2)
    taps = 2 * sigmoid(taps).view(-1, outputs, size, size, inputs).permute(0, 1, 4, 2, 3)
    kernels = kernels * taps * channel[:, None, :, None, None] * filter_[:, :, None, None, None]
    if attention.has('spatial_fc'):
        kernels = kernels * (2 * sigmoid(linear(attention.at('spatial_fc'), hidden))).view(-1, 1, 1, size, size)
        x = weighted_bands(x, 2 * sigmoid(static(x, weights['band_conv.weight'], 1, weights['band_conv.bias'])))
    return own_kernels(x, kernels, stride)


def ddf(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """Spatial filters times channel filters, both standardised (Decoupled dynamic filter, Eq. 1, 3 and 4)."""
    channel = weights.at('channel_branch')
    hidden = linear(channel.at('1'), averages(x)).relu()
    filters = standardise(linear(channel.at('3'), hidden).unflatten(1, (x.shape[1], -1)))
    filters = filters * channel['4.std'].view(filters.shape[1:])
    places = pointwise(weights.at('spatial_branch.0'), x, stride)[:, None]
    places = standardise(places) * math.sqrt(2 / places.shape[2])
    kernels = filters[:, :, :, None, None] * places
    return (windows(x, math.isqrt(places.shape[2]), stride) * kernels).sum(2)


def local_relation(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """softmax(−|q − k| + g(position)), then a 1×1 convolution (Local relation networks, Eq. 1 to 3)."""
    query, key = pointwise(weights.at('query'), x, stride), pointwise(weights.at('key'), x)
    places = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    prior = linear(weights.at('geometry_prior.layers.0'), torch.cartesian_prod(places, places)).relu()
    prior = linear(weights.at('geometry_prior.layers.2'), prior).T[:, :, None, None]
    kernels = softmax(prior - (query[:, :, None] - windows(key, WINDOW, stride)).abs(), 2)
    return pointwise(weights.at('proj'), apply_windows(windows(x, WINDOW, stride), kernels))


def self_attention(weights: Weights, x: Tensor, stride: int, shared: Tensor | None) -> Tensor:
    """softmax(q·k + q·r), averaged over the stride (Stand-alone self-attention, Eq. 3)."""
    rows, columns = weights['embedding.rows'], weights['embedding.columns']
    heads, size = rows.shape[0], rows.shape[2]
    query, key, value = (pointwise(weights.at(name), x) for name in ('query', 'key', 'value'))
    embedding = torch.cat([rows[:, :, :, None].expand(-1, -1, -1, size), columns[:, :, None].expand(-1, -1, size, -1)],
                          1).flatten(2)
    query = query.unflatten(1, (heads, -1))[:, :, :, None]
    neighbours = windows(key, size).unflatten(1, (heads, -1)) + embedding[..., None, None]
    y = apply_windows(windows(value, size), softmax((query * neighbours).sum(2), 2))
    return F.avg_pool2d(y, stride) if stride > 1 else y


def reflected(length: int, margin: int) -> Tensor:
    """The positions that are seen beyond mirrors at both ends."""
    period = 2 * (length - 1)
    places = torch.arange(-margin, length + margin) % period
    return torch.minimum(places, period - places)


def pairwise_attention(weights: Weights, x: Tensor, size: int) -> Tensor:
    """softmax(γ([q_i − k_j; p_i − p_j])), γ of norms, ReLUs and 1×1 convolutions (SAN, Eq. 2 to 4)."""
    height, width = x.shape[2:]
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, width, dtype=x.dtype),
                                      torch.linspace(-1, 1, height, dtype=x.dtype), indexing='xy'))
    position = pointwise(weights.at('conv_p'), grid[None]).expand(len(x), -1, -1, -1)

    def mirrored_windows(maps: Tensor) -> Tensor:
        margin = size // 2
        maps = maps[:, :, reflected(height, margin)][:, :, :, reflected(width, margin)]
        return F.unfold(maps, size).view(len(x), -1, size * size, height * width)

    relation = torch.cat([pointwise(weights.at('conv1'), x), position], 1).flatten(2)[:, :, None]
    relation = relation - mirrored_windows(torch.cat([pointwise(weights.at('conv2'), x), position], 1))
    gamma = weights.at('conv_w')
    hidden = pointwise(gamma.at('2'), batch_norm(gamma.at('0'), relation).relu())
    kernels = softmax(pointwise(gamma.at('5'), batch_norm(gamma.at('3'), hidden).relu()), 2)
    values = mirrored_windows(pointwise(weights.at('conv3'), x))
    return apply_windows(values[..., None], kernels[..., None]).view(len(x), -1, height, width)


def attention_stem(weights: Weights, x: Tensor, heads: int = 4, size: int = 4) -> Tensor:
    """Attention within blocks, of values mixed by where they stand (Stand-alone self-attention, Eq. 8 and 9; A.1)."""
    batch, _, height, width = x.shape

    def blocks(maps: Tensor) -> Tensor:
        """Tensor[batch, channels, blocks, size²]"""
        parts = maps.view(batch, -1, height // size, size, width // size, size).permute(0, 1, 2, 4, 3, 5)
        return parts.reshape(batch, -1, height * width // size**2, size * size)

    query, key, value = (blocks(pointwise(weights.at(name), x)) for name in ('query', 'key', 'value'))
    channels = query.shape[1]
    places = (weights['rows'][:, :, None] + weights['columns'][:, None]).flatten(1)
    mix = softmax(weights['mixing'] @ places, 0)
    value = (value.unflatten(1, (-1, channels)) * mix[:, None, None]).sum(1)
    query, key, value = (part.unflatten(1, (heads, -1)) for part in (query, key, value))
    attention = softmax(torch.einsum('bhcni,bhcnj->bhnij', query, key), 4)
    y = torch.einsum('bhnij,bhcnj->bhcni', attention, value).flatten(1, 2)
    y = y.view(batch, channels, height // size, width // size, size, size).permute(0, 1, 2, 4, 3, 5)
    return y.reshape(batch, channels, height, width)


LAYERS: dict[str, Callable] = {  # by a weight that no other layer has, or none behind it
    'dft_weight': fdconv,
    'attention.fc.weight': odconv,
    'attention.norm1.weight': kernel_warehouse,
    'attention.fc1.weight': dyconv,
    'fc_phi.weight': dcd,
    'conv1.conv.weight': involution,
    'lsa.conv1.conv.weight': dcdc,
    'ce.weight': cgc,
    'location.fc1.weight': we,
    'channel_branch.1.weight': ddf,
    'geometry_prior.layers.0.weight': local_relation,
    'embedding.rows': self_attention,
    'fc.weight': weightnet,
}


def convolve(weights: Weights, x: Tensor, stride: int = 1, shared: Tensor | None = None) -> Tensor:
    """The layer that has these weights."""
    for name, layer in LAYERS.items():
        if name in weights:
            return layer(weights, x, stride, shared)
    kernel = weights['weight']
    return static(x, kernel, stride) if kernel.dim() == 4 else condconv(weights, x, stride, shared)


def shared_by_block(weights: Weights, x: Tensor) -> Tensor | None:
    """What CondConv and WeightNet compute once for all convolutions of a block."""
    return linear(weights.at('routing.fc'), averages(x)) if weights.has('routing') else None


# The networks.


def residual_block(weights: Weights, x: Tensor, stride: int) -> Tensor:
    """A basic block, whose first convolution has the stride, or a bottleneck, whose second has it."""
    y, shared = x, shared_by_block(weights, x)
    numbers = (1, 2, 3) if weights.has('conv3') else (1, 2)
    for number in numbers:
        y = convolve(weights.at(f'conv{number}'), y, stride if number == len(numbers) - 1 else 1, shared)
        y = batch_norm(weights.at(f'bn{number}'), y)
        if number < len(numbers):
            y = y.relu()
    if weights.has('downsample'):
        x = batch_norm(weights.at('downsample.1'), convolve(weights.at('downsample.0'), x, stride))
    return (y + x).relu()


def resnet_stem(weights: Weights, x: Tensor) -> Tensor:
    """ResNet's 7×7 convolution, RedNet's, LR-Net's or SA-ResNet's stem, and the max pooling."""
    if weights.has('conv1'):
        x = batch_norm(weights.at('bn1'), convolve(weights.at('conv1'), x, 2)).relu()
    elif 'stem.0.mixing' in weights:
        x = batch_norm(weights.at('stem.1'), attention_stem(weights.at('stem.0'), x)).relu()
        return F.max_pool2d(x, 4, 4)
    elif weights.has('stem.3'):
        x = batch_norm(weights.at('stem.1'), convolve(weights.at('stem.0'), x)).relu()
        x = batch_norm(weights.at('stem.4'), convolve(weights.at('stem.3'), x, 2)).relu()
    else:
        x = batch_norm(weights.at('stem.0.bn'), convolve(weights.at('stem.0.conv'), x, 2)).relu()
        x = batch_norm(weights.at('stem.2'), convolve(weights.at('stem.1'), x)).relu()
        x = batch_norm(weights.at('stem.4.bn'), convolve(weights.at('stem.4.conv'), x)).relu()
    return F.max_pool2d(x, 3, 2, 1)


def resnet(weights: Weights, x: Tensor) -> list[Tensor]:
    """The maps of the four stages."""
    if weights.has('warehouse_manager'):
        weights = replace(weights, cells=resnet_warehouses(weights))
    maps = [resnet_stem(weights, x)]
    for stage in (1, 2, 3, 4):
        y = maps[-1]
        for number, block in enumerate(weights.at(f'layer{stage}').numbered()):
            y = residual_block(block, y, 2 if stage > 1 and number == 0 else 1)
        maps.append(y)
    return maps[1:]


def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def mobilenet_v2(weights: Weights, x: Tensor) -> list[Tensor]:
    """The map behind the last 1×1 convolution."""
    x = relu6(batch_norm(weights.at('conv1.bn'), convolve(weights.at('conv1.conv'), x, 2)))
    for stage, stage_stride in enumerate(MOBILENET_STRIDES, 1):
        for number, block in enumerate(weights.at(f'layer{stage}').numbered()):
            stride, y, shared = stage_stride if number == 0 else 1, x, shared_by_block(block, x)
            convs = list(block.at('conv').numbered())
            for place, conv in enumerate(convs):
                depthwise, last = place == len(convs) - 2, place == len(convs) - 1
                y = batch_norm(conv.at('bn'), convolve(conv.at('conv'), y, stride if depthwise else 1, shared))
                y = y if last else relu6(y)
            x = x + y if stride == 1 and x.shape == y.shape else y
    return [relu6(batch_norm(weights.at('conv2.bn'), convolve(weights.at('conv2.conv'), x)))]


def san(weights: Weights, x: Tensor) -> list[Tensor]:
    """The map of the last of five stages, each behind a 2×2 max pooling."""
    x = batch_norm(weights.at('bn_in'), pointwise(weights.at('conv_in'), x)).relu()
    for stage in (1, 2, 3, 4, 5):
        layer, number = weights.at(f'layer{stage}'), 2
        x = pointwise(layer.at('1'), F.max_pool2d(x, 2))
        while layer.has(f'{number}.sam'):
            block = layer.at(number)
            y = pairwise_attention(block.at('sam'), batch_norm(block.at('bn1'), x).relu(), 3 if stage == 1 else WINDOW)
            x = x + pointwise(block.at('conv'), batch_norm(block.at('bn2'), y).relu())
            number += 1
        x = batch_norm(layer.at(number), x).relu()
    return [x]


def backbone(weights: Weights, x: Tensor) -> list[Tensor]:
    """The maps of the network that has these weights."""
    network = san if weights.has('conv_in') else mobilenet_v2 if weights.has('conv2') else resnet
    return network(weights, x)


def logits(weights: Weights, x: Tensor) -> Tensor:
    """The classifier, static, of CondConv or of DCD, Tensor[batch, classes]."""
    pooled = F.dropout(averages(backbone(weights.at('backbone'), x)[-1]), weights.dropout, weights.training)
    head = weights.at('head')
    if head.has('cls'):
        scale, phi = dcd_coefficients(head, pooled)
        v = dcd_fuse(head, linear(head.at('cls_q'), pooled)[:, :, None], phi)[:, :, 0]
        return scale * linear(head.at('cls'), pooled) + linear(head.at('cls_p'), v)
    head = head.at('fc')
    if head['weight'].dim() == 2:
        return linear(head, pooled)
    routes = sigmoid(linear(head.at('routing.fc'), pooled))
    mixed = torch.stack([sum(r * w for r, w in zip(route, head['weight'])) for route in routes])
    return (mixed @ pooled[:, :, None])[:, :, 0] + head['bias']


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return (torch.log(torch.exp(scores).sum(1)) - scores.gather(1, labels[:, None])[:, 0]).mean()


def retinanet_pyramid(weights: Weights, maps: list[Tensor]) -> list[Tensor]:
    """Five levels: of stages 2 to 4 by the layer that has these weights, and two by strided 3×3 convolutions of the
    last stage."""
    levels = [pointwise(weights.at(f'lateral_convs.{number}.conv'), x) for number, x in enumerate(maps[1:])]
    for number in (1, 0):
        above = levels[number + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
        levels[number] = levels[number] + above
    convs = weights.at('fpn_convs')
    outputs = [convolve(convs.at(f'{number}.conv'), x) for number, x in enumerate(levels)]
    x = maps[-1]
    for number in (3, 4):
        x = static(x, convs[f'{number}.conv.weight'], 2, convs[f'{number}.conv.bias'])
        outputs.append(x)
    return outputs


# Training.


def temperature_at(iteration: int, total: int, start: float = 30., end: float = 1.) -> float:
    """τ = 1 + 29 · max(0, (T − t) / T), t the iterations done and one (ODConv, A.2); KernelWarehouse's from 1 to 0."""
    return end + (start - end) * max(0., (total - (iteration + 1)) / total)


class SGD:
    """v ← μv + (g + λw), w ← w − ηv."""

    def __init__(self, parameters: dict[str, Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        self.parameters, self.lr, self.momentum, self.weight_decay = parameters, lr, momentum, weight_decay
        self.velocities = {name: torch.zeros_like(value) for name, value in parameters.items()}

    def step(self, loss: Tensor) -> None:
        """Down the gradients of a loss."""
        gradients = torch.autograd.grad(loss, list(self.parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(self.parameters.items(), gradients):
                velocity = self.velocities[name]
                velocity.mul_(self.momentum).add_(gradient + self.weight_decay * value)
                value.sub_(self.lr * velocity)

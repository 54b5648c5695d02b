r"""A mixture of kernels as one implicit matrix product, with no kernel of a sample in memory.

.. math:: y_b = \alpha^f_b \odot (\tilde W_b * x_b) + bias, \quad
    \tilde W_b = \sum_i \alpha^w_{bi} \odot \alpha^s_{bi} \odot \alpha^c_{bi} \odot \alpha^f_{bi} \odot W_i

Each program mixes the tile of :math:`\tilde W_b` that it needs in registers. α_w and α_s are one factor for
each sample, kernel and tap (``taps``), multiplied outside of the kernels.
α_c and α_f are shared by the kernels, or each kernel's own. Shared ones scale the mixed tile once, and α_f
the output, α_c the input's gradient.

The gradients of the weight and of all attentions are contractions of one tensor, the gradient of
:math:`\tilde W_b`. A program computes a tile of it for one sample after the other, and contracts it at once.
What programs have in common is added up by torch afterwards, not atomically: the same call gives the same bits.
"""
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...geometry import output_size
from ...mixture_conv import Mixture
from ...operator import is_channels_last
from .common import (
    ACCUMULATORS,
    accumulator,
    block,
    matmul,
    output_position,
    precision,
    product,
    share_of_program,
    tile_of,
    window_position,
)

PROGRAMS = 512
"""Where the weight's gradient has fewer tiles, several programs share a tile's samples, up to about this number."""


@triton.jit
def _mix(weight, weight_strides, taps, tap_strides, channel, channel_strides, filter_, filter_strides,
         sample, group, o, c, i, j, tap,
         KERNELS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, GROUP_OUTPUTS: tl.constexpr,
         CHANNEL: tl.constexpr, FILTER: tl.constexpr, ACC: tl.constexpr):
    """The tile [o, c] of the kernel of ``sample`` at one tap; ``o`` and ``c`` count within the group."""
    o_inside, c_inside = o < GROUP_OUTPUTS, c < GROUP_CHANNELS
    out = (group * GROUP_OUTPUTS + o).to(tl.int64)
    in_ = (group * GROUP_CHANNELS + c).to(tl.int64)
    inside = o_inside[:, None] & c_inside[None, :]
    tile = weight + (out[:, None] * weight_strides[1] + c.to(tl.int64)[None, :] * weight_strides[2]
                     + i * weight_strides[3] + j * weight_strides[4])
    taps += sample * tap_strides[0] + tap * tap_strides[2]
    if CHANNEL != 'absent':
        channel += sample * channel_strides[0] + in_ * channel_strides[2]
    if FILTER != 'absent':
        filter_ += sample * filter_strides[0] + out * filter_strides[2]
    mixed = tl.zeros([o.shape[0], c.shape[0]], ACC)
    for _ in tl.static_range(KERNELS):
        kernel = tl.load(tile, inside, 0.).to(ACC) * tl.load(taps).to(ACC)
        if CHANNEL == 'own':
            kernel *= tl.load(channel, c_inside, 0.).to(ACC)[None, :]
            channel += channel_strides[1]
        if FILTER == 'own':
            kernel *= tl.load(filter_, o_inside, 0.).to(ACC)[:, None]
            filter_ += filter_strides[1]
        mixed += kernel
        tile += weight_strides[0]
        taps += tap_strides[1]
    if CHANNEL == 'shared':
        mixed *= tl.load(channel, c_inside, 0.).to(ACC)[None, :]
    if FILTER == 'shared':
        mixed *= tl.load(filter_, o_inside, 0.).to(ACC)[:, None]
    return mixed


@triton.jit
def _forward(x, x_strides, weight, weight_strides, bias, taps, tap_strides, channel, channel_strides,
             filter_, filter_strides, y, y_strides, height, width, pixels, out_width,
             GROUPS: tl.constexpr, KERNELS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, GROUP_OUTPUTS: tl.constexpr,
             GEOMETRY: tl.constexpr, CHANNEL: tl.constexpr, FILTER: tl.constexpr, BIAS: tl.constexpr,
             ACC: tl.constexpr, PRODUCT: tl.constexpr, PRECISION: tl.constexpr,
             BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """A block of outputs of one sample and group."""
    o, p, group, sample = share_of_program(GROUP_OUTPUTS, pixels, GROUPS, BLOCK_O, BLOCK_P)
    out_row, out_column = p // out_width, p % out_width
    total = tl.zeros([BLOCK_O, BLOCK_P], ACC)
    for first in range(0, GROUP_CHANNELS, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        in_ = (group * GROUP_CHANNELS + c).to(tl.int64)
        for tap in range(GEOMETRY[0] * GEOMETRY[1]):  # the taps of an element lie side by side in memory
            i, j = tap // GEOMETRY[1], tap % GEOMETRY[1]
            mixed = _mix(weight, weight_strides, taps, tap_strides, channel, channel_strides, filter_, filter_strides,
                         sample, group, o, c, i, j, tap, KERNELS, GROUP_CHANNELS, GROUP_OUTPUTS,
                         CHANNEL, FILTER if FILTER == 'own' else 'absent', ACC)
            row, column, inside = window_position(out_row, out_column, tap, GEOMETRY, height, width)
            tile = tl.load(tile_of(x, x_strides, sample, in_, row, column),
                           (c < GROUP_CHANNELS)[:, None] & (inside & (p < pixels))[None, :], 0.)
            total = matmul(mixed, tile, total, PRODUCT, PRECISION)
    out = (group * GROUP_OUTPUTS + o).to(tl.int64)
    o_inside = o < GROUP_OUTPUTS
    if FILTER == 'shared':
        total *= tl.load(filter_ + sample * filter_strides[0] + out * filter_strides[2], o_inside, 0.).to(ACC)[:, None]
    if BIAS:
        total += tl.load(bias + out, o_inside, 0.).to(ACC)[:, None]
    tl.store(tile_of(y, y_strides, sample, out, out_row, out_column), total.to(y.dtype.element_ty),
             o_inside[:, None] & (p < pixels)[None, :])


@triton.jit
def _input_gradient(dy, dy_strides, weight, weight_strides, taps, tap_strides, channel, channel_strides,
                    filter_, filter_strides, dx, dx_strides, pixels, width, out_height, out_width,
                    GROUPS: tl.constexpr, KERNELS: tl.constexpr, GROUP_CHANNELS: tl.constexpr,
                    GROUP_OUTPUTS: tl.constexpr, GEOMETRY: tl.constexpr, CHANNEL: tl.constexpr, FILTER: tl.constexpr,
                    ACC: tl.constexpr, PRODUCT: tl.constexpr, PRECISION: tl.constexpr,
                    BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """A block of the input's gradient of one sample and group: the transposed convolution."""
    c, p, group, sample = share_of_program(GROUP_CHANNELS, pixels, GROUPS, BLOCK_C, BLOCK_P)
    row, column = p // width, p % width
    total = tl.zeros([BLOCK_C, BLOCK_P], ACC)
    for first in range(0, GROUP_OUTPUTS, BLOCK_O):
        o = first + tl.arange(0, BLOCK_O)
        out = (group * GROUP_OUTPUTS + o).to(tl.int64)
        for tap in range(GEOMETRY[0] * GEOMETRY[1]):
            i, j = tap // GEOMETRY[1], tap % GEOMETRY[1]
            mixed = _mix(weight, weight_strides, taps, tap_strides, channel, channel_strides, filter_, filter_strides,
                         sample, group, o, c, i, j, tap, KERNELS, GROUP_CHANNELS, GROUP_OUTPUTS,
                         CHANNEL if CHANNEL == 'own' else 'absent', FILTER, ACC)
            out_row, out_column, inside = output_position(row, column, tap, GEOMETRY, out_height, out_width)
            tile = tl.load(tile_of(dy, dy_strides, sample, out, out_row, out_column),
                           (o < GROUP_OUTPUTS)[:, None] & (inside & (p < pixels))[None, :], 0.)
            total = matmul(tl.trans(mixed), tile, total, PRODUCT, PRECISION)
    in_ = (group * GROUP_CHANNELS + c).to(tl.int64)
    c_inside = c < GROUP_CHANNELS
    if CHANNEL == 'shared':
        total *= tl.load(channel + sample * channel_strides[0] + in_ * channel_strides[2], c_inside, 0.
                         ).to(ACC)[:, None]
    tl.store(tile_of(dx, dx_strides, sample, in_, row, column), total.to(dx.dtype.element_ty),
             c_inside[:, None] & (p < pixels)[None, :])


@triton.jit
def _weight_gradient(x, x_strides, dy, dy_strides, weight, weight_strides, taps, tap_strides,
                     channel, channel_strides, filter_, filter_strides,
                     dweight, dweight_strides, dtaps, dtaps_strides, dchannel, dchannel_strides,
                     dfilter, dfilter_strides, samples, samples_a_split, height, width, pixels, out_width,
                     GROUPS: tl.constexpr, KERNELS: tl.constexpr, GROUP_CHANNELS: tl.constexpr,
                     GROUP_OUTPUTS: tl.constexpr, GEOMETRY: tl.constexpr, CHANNEL: tl.constexpr, FILTER: tl.constexpr,
                     ACC: tl.constexpr, PRODUCT: tl.constexpr, PRECISION: tl.constexpr,
                     BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr):
    """All that follows from the gradient of one tile of the samples' kernels, at one tap, for a split of the samples.

    With G the gradient of a sample's kernel, T its taps, C and F its channel and filter attention:
    dW = Σ_b T C F G, dT = Σ_oc C F W G, dC = T Σ_o F W G and dF = T Σ_c C W G.
    """
    program = tl.program_id(0)
    o_blocks: tl.constexpr = (GROUP_OUTPUTS + BLOCK_O - 1) // BLOCK_O
    c_blocks: tl.constexpr = (GROUP_CHANNELS + BLOCK_C - 1) // BLOCK_C
    o_block, program = program % o_blocks, program // o_blocks
    c_block, program = program % c_blocks, program // c_blocks
    area: tl.constexpr = GEOMETRY[0] * GEOMETRY[1]
    tap, program = program % area, program // area
    group, split = program % GROUPS, (program // GROUPS).to(tl.int64)
    i, j = tap // GEOMETRY[1], tap % GEOMETRY[1]
    o, c = o_block * BLOCK_O + tl.arange(0, BLOCK_O), c_block * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tl.arange(0, BLOCK_N).to(tl.int64)
    o_inside, c_inside, n_inside = o < GROUP_OUTPUTS, c < GROUP_CHANNELS, n < KERNELS
    inside = n_inside[:, None, None] & o_inside[None, :, None] & c_inside[None, None, :]
    out, in_ = (group * GROUP_OUTPUTS + o).to(tl.int64), (group * GROUP_CHANNELS + c).to(tl.int64)
    kernels = tl.load(weight + (n[:, None, None] * weight_strides[0] + out[None, :, None] * weight_strides[1]
                                + c.to(tl.int64)[None, None, :] * weight_strides[2] + i * weight_strides[3]
                                + j * weight_strides[4]), inside, 0.).to(ACC)
    total = tl.zeros([BLOCK_N, BLOCK_O, BLOCK_C], ACC)
    for sample in range(split * samples_a_split, tl.minimum((split + 1) * samples_a_split, samples)):
        gradient = tl.zeros([BLOCK_O, BLOCK_C], ACC)
        for first in range(0, pixels, BLOCK_P):
            p = first + tl.arange(0, BLOCK_P)
            out_row, out_column = p // out_width, p % out_width
            dy_tile = tl.load(tile_of(dy, dy_strides, sample, out, out_row, out_column),
                              o_inside[:, None] & (p < pixels)[None, :], 0.)
            row, column, shown = window_position(out_row, out_column, tap, GEOMETRY, height, width)
            x_tile = tl.load(tl.trans(tile_of(x, x_strides, sample, in_, row, column)),
                             (shown & (p < pixels))[:, None] & c_inside[None, :], 0.)
            gradient = matmul(dy_tile, x_tile, gradient, PRODUCT, PRECISION)
        t = tl.load(taps + sample * tap_strides[0] + n * tap_strides[1] + tap * tap_strides[2], n_inside, 0.).to(ACC)
        per_kernel = kernels * gradient[None, :, :]
        per_weight = t[:, None, None] * gradient[None, :, :]
        if CHANNEL != 'absent':
            # a shared attention is the same for all n
            by_channel = tl.load(channel + sample * channel_strides[0] + n[:, None] * channel_strides[1]
                                 + in_[None, :] * channel_strides[2],
                                 n_inside[:, None] & c_inside[None, :], 0.).to(ACC)
            per_weight *= by_channel[:, None, :]
        if FILTER != 'absent':
            by_filter = tl.load(filter_ + sample * filter_strides[0] + n[:, None] * filter_strides[1]
                                + out[None, :] * filter_strides[2],
                                n_inside[:, None] & o_inside[None, :], 0.).to(ACC)
            per_weight *= by_filter[:, :, None]
            of_filter = per_kernel
            if CHANNEL != 'absent':
                of_filter = of_filter * by_channel[:, None, :]
            of_filter = t[:, None] * tl.sum(of_filter, 2)
            place = sample * dfilter_strides[0] + (c_block * area + tap) * dfilter_strides[3]
            if FILTER == 'own':
                tl.store(dfilter + place + n[:, None] * dfilter_strides[1] + out[None, :] * dfilter_strides[2],
                         of_filter, n_inside[:, None] & o_inside[None, :])
            else:
                tl.store(dfilter + place + out * dfilter_strides[2], tl.sum(of_filter, 0), o_inside)
            per_kernel *= by_filter[:, :, None]
        of_channel = tl.sum(per_kernel, 1)
        of_taps = of_channel
        if CHANNEL != 'absent':
            of_taps = of_channel * by_channel
            of_channel = of_channel * t[:, None]
            place = sample * dchannel_strides[0] + (o_block * area + tap) * dchannel_strides[3]
            if CHANNEL == 'own':
                tl.store(dchannel + place + n[:, None] * dchannel_strides[1] + in_[None, :] * dchannel_strides[2],
                         of_channel, n_inside[:, None] & c_inside[None, :])
            else:
                tl.store(dchannel + place + in_ * dchannel_strides[2], tl.sum(of_channel, 0), c_inside)
        part = (group * o_blocks + o_block) * c_blocks + c_block
        tl.store(dtaps + sample * dtaps_strides[0] + n * dtaps_strides[1] + tap * dtaps_strides[2]
                 + part * dtaps_strides[3], tl.sum(of_taps, 1), n_inside)
        total += per_weight
    tl.store(dweight + split * dweight_strides[0]
             + (n[:, None, None] * dweight_strides[1] + out[None, :, None] * dweight_strides[2]
                + c.to(tl.int64)[None, None, :] * dweight_strides[3] + i * dweight_strides[4] + j * dweight_strides[5]),
             total, inside)


def forward(m: Mixture) -> Tensor:
    """The output.

    Sums are taken in float32 (float64 for float64 inputs), products in the input's type. float32 products obey
    ``torch.backends.cudnn.allow_tf32``, as those of torch's convolutions do.

    Returns:
        Tensor[batch, out_channels, out_height, out_width], of the input's type and memory format

    Raises:
        ValueError: the padded input is smaller than the kernel.
    """
    x, weight, taps, channel, filter_ = _tensors(m)
    out_height, out_width = output_size(x.shape[2:], weight.shape[3:], m.stride, m.padding, m.dilation)
    if min(out_height, out_width) < 1:
        raise ValueError(f'input must not be smaller than the kernel, but its size is {tuple(x.shape[2:])} with kernel '
                         f'size {tuple(weight.shape[3:])}')
    constants = _constants(m, x, weight, channel, filter_)
    pixels = out_height * out_width
    y = torch.empty(len(x), weight.shape[1], out_height, out_width, dtype=x.dtype, device=x.device,
                    memory_format=torch.channels_last if is_channels_last(x) else torch.contiguous_format)
    blocks = _blocks(constants, x.dtype, pixels, most_o=64, most_c=32)
    programs = (len(x) * m.groups * triton.cdiv(pixels, blocks['BLOCK_P'])
                * triton.cdiv(constants['GROUP_OUTPUTS'], blocks['BLOCK_O']))
    bias = None if m.bias is None else m.bias.contiguous()
    with torch.cuda.device_of(x):
        _forward[(programs, )](x, x.stride(), weight, weight.stride(), bias, taps, taps.stride(),
                               channel, _strides(channel), filter_, _strides(filter_), y, y.stride(),
                               *x.shape[2:], pixels, out_width, BIAS=bias is not None, **constants, **blocks)
    return y


def backward(m: Mixture, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of the tensors that need one."""
    tensors = _tensors(m)
    constants = _constants(m, *tensors[:2], *tensors[3:])
    dx = dweight = dbias = dtaps = dchannel = dfilter = None
    if needed[0]:
        dx = _differentiate_input(grad, *tensors, constants)
    if any(needed[i] for i in (1, 3, 4, 5, 6)):
        dweight, dtaps, dchannel, dfilter = _differentiate_weight(grad, *tensors, constants)
    if needed[2]:
        dbias = grad.sum((0, 2, 3), dtype=accumulator(grad.dtype)).to(m.bias.dtype)
    # taps is α_w · α_s
    dkernel = dspatial = None
    if needed[3]:
        of_taps = dtaps if m.spatial_attention is None else dtaps * _per_kernel(m.spatial_attention)
        dkernel = of_taps.sum(2).to(m.kernel_attention.dtype)
    if needed[4]:
        of_taps = dtaps if m.kernel_attention is None else dtaps * m.kernel_attention[:, :, None]
        dspatial = _like(of_taps, m.spatial_attention)
    return (dx, dweight if needed[1] else None, dbias, dkernel, dspatial,
            _like(dchannel, m.channel_attention) if needed[5] else None,
            _like(dfilter, m.filter_attention) if needed[6] else None)


def _tensors(m: Mixture) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Features, weight, α_w · α_s as Tensor[batch, n, kernel area], α_c and α_f as Tensor[batch, 1 (shared) or n,
    length]."""
    batch, n, area = len(m.input), len(m.weight), m.weight.shape[3] * m.weight.shape[4]
    taps = m.input.new_ones(1, 1, 1, dtype=accumulator(m.input.dtype))
    if m.kernel_attention is not None:
        taps = taps * m.kernel_attention[:, :, None]
    if m.spatial_attention is not None:
        taps = taps * _per_kernel(m.spatial_attention)
    return (m.input, m.weight, taps.expand(batch, n, area), _per_kernel(m.channel_attention),
            _per_kernel(m.filter_attention))


def _per_kernel(attention: Tensor | None) -> Tensor | None:
    """[batch, 1 or n, length]"""
    return attention[:, None] if attention is not None and attention.dim() == 2 else attention


def _like(gradient: Tensor, attention: Tensor) -> Tensor:
    """A gradient [batch, 1 or n, length] as that of an attention that all kernels share, or of each kernel's own."""
    gradient = gradient.sum(1) if attention.dim() == 2 else gradient
    return gradient.to(attention.dtype)


def _differentiate_input(dy: Tensor, x: Tensor, weight: Tensor, taps: Tensor, channel: Tensor | None,
                         filter_: Tensor | None, constants: dict) -> Tensor:
    dx = torch.empty_like(x)
    pixels = x.shape[2] * x.shape[3]
    blocks = _blocks(constants, x.dtype, pixels, most_o=32, most_c=64)
    programs = (len(x) * constants['GROUPS'] * triton.cdiv(pixels, blocks['BLOCK_P'])
                * triton.cdiv(constants['GROUP_CHANNELS'], blocks['BLOCK_C']))
    with torch.cuda.device_of(x):
        _input_gradient[(programs, )](dy, dy.stride(), weight, weight.stride(), taps, taps.stride(),
                                      channel, _strides(channel), filter_, _strides(filter_), dx, dx.stride(),
                                      pixels, x.shape[3], *dy.shape[2:], **constants, **blocks)
    return dx


def _differentiate_weight(dy: Tensor, x: Tensor, weight: Tensor, taps: Tensor, channel: Tensor | None,
                          filter_: Tensor | None, constants: dict
                          ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of weight, taps, channel and filter attention."""
    batch, pixels, area = len(x), dy.shape[2] * dy.shape[3], taps.shape[2]
    blocks = _gradient_blocks(constants, pixels)
    o_blocks = triton.cdiv(constants['GROUP_OUTPUTS'], blocks['BLOCK_O'])
    c_blocks = triton.cdiv(constants['GROUP_CHANNELS'], blocks['BLOCK_C'])
    tiles = constants['GROUPS'] * area * o_blocks * c_blocks
    samples_a_split = triton.cdiv(batch, min(batch, triton.cdiv(PROGRAMS, tiles)))
    splits = triton.cdiv(batch, samples_a_split)

    def parts(*size: int) -> Tensor:
        return torch.empty(size, dtype=accumulator(x.dtype), device=x.device)

    dweight = parts(splits, *weight.shape)
    dtaps = parts(*taps.shape, constants['GROUPS'] * o_blocks * c_blocks)
    dchannel = None if channel is None else parts(*channel.shape, o_blocks * area)
    dfilter = None if filter_ is None else parts(*filter_.shape, c_blocks * area)
    with torch.cuda.device_of(x):
        _weight_gradient[(splits * tiles, )](
            x, x.stride(), dy, dy.stride(), weight, weight.stride(), taps, taps.stride(), channel, _strides(channel),
            filter_, _strides(filter_), dweight, dweight.stride(), dtaps, dtaps.stride(), dchannel, _strides(dchannel),
            dfilter, _strides(dfilter), batch, samples_a_split, *x.shape[2:], pixels, dy.shape[3],
            **constants, **blocks)
    return (dweight.sum(0).to(weight.dtype), dtaps.sum(3).to(taps.dtype),
            None if channel is None else dchannel.sum(3).to(channel.dtype),
            None if filter_ is None else dfilter.sum(3).to(filter_.dtype))


def _strides(attention: Tensor | None) -> tuple[int, ...] | None:
    """Strides by which all kernels find a shared attention."""
    if attention is None:
        return None
    strides = attention.stride()
    return strides if attention.shape[1] > 1 else (strides[0], 0, *strides[2:])


def _constants(m: Mixture, x: Tensor, weight: Tensor, channel: Tensor | None, filter_: Tensor | None) -> dict:
    """What the kernels are compiled for, beside sizes of blocks."""
    n, out_channels, group_channels = weight.shape[:3]

    def kind(attention: Tensor | None) -> str:
        return 'absent' if attention is None else 'shared' if attention.shape[1] == 1 else 'own'

    return dict(GROUPS=m.groups, KERNELS=n, GROUP_CHANNELS=group_channels, GROUP_OUTPUTS=out_channels // m.groups,
                GEOMETRY=(*weight.shape[3:], *m.stride, *m.padding, *m.dilation),
                CHANNEL=kind(channel), FILTER=kind(filter_), ACC=ACCUMULATORS[x.dtype],
                PRODUCT=product(out_channels // m.groups, group_channels, x.dtype), PRECISION=precision(x.dtype))


def _blocks(constants: dict, dtype: torch.dtype, pixels: int, most_o: int, most_c: int) -> dict[str, int]:
    """The tile of an output or an input's gradient, and of the channels that are added up in one step."""
    outputs, channels = constants['GROUP_OUTPUTS'], constants['GROUP_CHANNELS']
    if constants['PRODUCT'] == 'sum':
        o, c = block(outputs, 16), block(channels, 16)
        return dict(BLOCK_O=o, BLOCK_C=c, BLOCK_P=block(pixels, max(16, 1024 // (o * c))))
    # the tiles and those read ahead are to fit the 99 KiB of shared memory that GPUs since sm_80 have at least
    return dict(BLOCK_O=block(outputs, most_o, 16), BLOCK_C=block(channels, most_c, 16),
                BLOCK_P=block(pixels, 128 if dtype.itemsize == 2 else 64, 16),
                num_stages={2: 3, 4: 2, 8: 1}[dtype.itemsize])


def _gradient_blocks(constants: dict, pixels: int) -> dict[str, int]:
    """The tile of the weight's gradient: all kernels' are in registers at once."""
    n, outputs, channels = triton.next_power_of_2(constants['KERNELS']), *(
        constants[name] for name in ('GROUP_OUTPUTS', 'GROUP_CHANNELS'))
    if constants['PRODUCT'] == 'sum':
        o, c = block(outputs, 16), block(channels, 16)
        return dict(BLOCK_N=n, BLOCK_O=o, BLOCK_C=c, BLOCK_P=block(pixels, max(16, 1024 // (o * c))))
    return dict(BLOCK_N=n, BLOCK_O=block(outputs, 32, 16), BLOCK_C=block(channels, 32 if n <= 4 else 16, 16),
                BLOCK_P=block(pixels, 64, 16))

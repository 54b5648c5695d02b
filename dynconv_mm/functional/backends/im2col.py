"""A mixture of kernels as matrix products over the columns of the scaled input.

Where kernels are mixed, it is a product for each sample: they are mixed for a block of output channels at a time, which
stays in the processor's cache, and again in the backward pass. Where there is one kernel, all samples' columns lie side
by side, and it is a single product: on small maps the library multiplies eight narrow matrices at two thirds of the
speed of a wide one. Only the input is kept for the backward pass.
"""
from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import IntPair, pad_zeros, without_padding, zeros_padded
from ..mixture_conv import MIXTURE_CONV, Mixture
from ..operator import Backend, execute, records_gradients, scratch
from ..sample_conv import pointwise_columns
from .shared import needs_shared_attentions, scaled_input, scaled_output

# Elements of a block of mixed kernels, and of the columns that are made at once.
BLOCK_ELEMENTS = 2**21
COLUMN_ELEMENTS = 2**22
# Pixels of a map from which on the products of single samples are wide enough.
WIDE_PIXELS = 400


def im2col(m: Mixture) -> Tensor:
    """One product for the batch, or one for each sample."""
    one = m.kernel_attention is None
    if one and m.weight.shape[3] * m.weight.shape[4] == 1:
        height, width = m.output_size
        one = height * width < WIDE_PIXELS
    if not one:
        inner = m._replace(input=scaled_input(m), bias=None, channel_attention=None, filter_attention=None)
        return scaled_output(m, execute(MIXTURE_CONV, SAMPLE_PRODUCTS, inner))
    if not records_gradients(*m[:7]):
        return _multiply_batch(m)
    # autograd scales the output, and keeps what it needs for that
    return scaled_output(m, execute(MIXTURE_CONV, BATCH_PRODUCT, m._replace(bias=None, filter_attention=None)))


# A product for each sample, of kernels that are mixed and α_s.


def _multiply_samples(m: Mixture) -> Tensor:
    x, weight, kernel_attention = m.input, m.weight, m.kernel_attention
    windows = windows_of(x, weight.shape[3:], *m[7:10])
    scale = _scale(windows, m.spatial_attention, None)
    batch, height, width, out_channels = len(x), *windows.shape[4:], weight.shape[1]
    bank = weight.flatten(2)
    y = x.new_empty(batch, out_channels, height * width)
    for part in sample_parts(windows):
        columns = _columns(windows[part], None if scale is None else scale[part])
        if kernel_attention is None:
            torch.bmm(bank.expand(len(columns), -1, -1), columns, out=y[part])
            continue
        for block in _channel_blocks(bank, len(columns)):
            kernels = _mix(kernel_attention[part], bank[:, block])
            if block == slice(0, out_channels):
                torch.bmm(kernels, columns, out=y[part])
            else:
                y[part, block] = torch.bmm(kernels, columns)
    return y.view(batch, out_channels, height, width)


def _differentiate_samples(m: Mixture, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    x, weight, kernel_attention, spatial_attention = m.input, m.weight, m.kernel_attention, m.spatial_attention
    needs_x, needs_weight, _, needs_kernel, needs_spatial, _, _ = needed
    windows = windows_of(x, weight.shape[3:], *m[7:10])
    scale = _scale(windows, spatial_attention, None)
    bank, grad = weight.flatten(2), grad.flatten(2)
    grad_x = zeros_padded(x, m.padding) if needs_x else None
    grad_bank = torch.zeros_like(bank, memory_format=torch.contiguous_format) if needs_weight else None
    grad_kernel = torch.zeros_like(kernel_attention) if needs_kernel else None
    grad_spatial = torch.empty_like(spatial_attention) if needs_spatial else None
    for part in sample_parts(windows):
        own_scale = None if scale is None else scale[part]
        columns = _columns(windows[part], own_scale)
        grad_columns = None
        if needs_x or needs_spatial:
            # written by the first block, added to by the others
            grad_columns = scratch('grad_columns', columns.shape, columns)
        if kernel_attention is None:
            if needs_weight:
                grad_bank[0] += _sum_of_products(grad[part], columns)
            if grad_columns is not None:
                torch.bmm(bank.transpose(1, 2).expand(len(columns), -1, -1), grad[part], out=grad_columns)
        else:
            attention = kernel_attention[part]
            for block in _channel_blocks(bank, len(columns)):
                _differentiate_block(bank[:, block], attention, columns, grad[part, block],
                                     grad_bank[:, block] if needs_weight else None,
                                     grad_kernel[part] if needs_kernel else None, grad_columns, block.start == 0)
        if grad_columns is None:
            continue
        grad_windows = grad_columns.view(windows[part].shape)
        if needs_spatial:
            # over the columns, which are done with: fresh memory takes longer than the product
            product = _scaled(windows[part], grad_windows, columns.view(grad_windows.shape))
            grad_spatial[part] = product.sum((1, 4, 5)).flatten(1)
        if needs_x:
            add_windows(grad_x[part], grad_windows, own_scale, m.stride, m.dilation)
    if needs_x:
        grad_x = without_padding(grad_x, m.padding)
    return (grad_x, grad_bank.view_as(weight) if needs_weight else None, None, grad_kernel, grad_spatial, None, None)


def _differentiate_block(bank: Tensor, attention: Tensor, columns: Tensor, grad: Tensor, grad_bank: Tensor | None,
                         grad_kernel: Tensor | None, grad_columns: Tensor | None, is_first: bool) -> None:
    """Add to the gradients what comes from a block of output channels."""
    n = len(bank)
    if grad_bank is not None or grad_kernel is not None:
        # the gradients of each sample's own kernel
        shape = len(attention), *bank.shape[1:]
        grad_kernels = torch.bmm(grad, columns.transpose(1, 2), out=scratch('grad_kernels', shape, columns))
        if grad_bank is not None:
            grad_bank.view(n, -1).addmm_(attention.t(), grad_kernels.flatten(1))
        if grad_kernel is not None:  # by channels, since a product with two short sides is slow
            grad_kernel += torch.bmm(grad_kernels.transpose(0, 1), bank.permute(1, 2, 0)).sum(0)
    if grad_columns is not None:
        kernels = _mix(attention, bank).transpose(1, 2)
        if is_first:
            torch.bmm(kernels, grad, out=grad_columns)
        else:
            grad_columns.baddbmm_(kernels, grad)


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Tensor[rows, columns]: the sum over the samples of ``a[i] @ b[i].T``."""
    if len(a) * a.shape[1] * b.shape[1] <= a.numel() + b.numel():
        return torch.bmm(a, b.transpose(1, 2)).sum(0)
    return torch.tensordot(a, b, dims=((0, 2), (0, 2)))


def _mix(attention: Tensor, bank: Tensor) -> Tensor:
    """Tensor[batch, block, columns] of attention Tensor[batch, n] and bank Tensor[n, block, columns]."""
    shape = len(attention), *bank.shape[1:]
    mixed = torch.mm(attention, bank.reshape(len(bank), -1),
                     out=scratch('kernels', (shape[0], shape[1] * shape[2]), bank))
    return mixed.view(shape)


# One product for the batch, of one kernel, α_s and α_c, and without gradients α_f and the bias.


def _multiply_batch(m: Mixture) -> Tensor:
    windows = windows_of(m.input, m.weight.shape[3:], *m[7:10])
    scale = _scale(windows, m.spatial_attention, m.channel_attention)
    bank = m.weight.flatten(2)[0]
    filter_, bias = m.filter_attention, m.bias
    y = m.input.new_empty(len(m.input), len(bank), *windows.shape[4:])
    for part in sample_parts(windows):
        columns = _batch_columns(windows[part], scale if scale is None else scale[part])
        product = torch.mm(bank, columns, out=scratch('product', (len(bank), columns.shape[1]), columns))
        product = _by_sample(product, windows[part])
        if filter_ is None and bias is None:
            y[part].copy_(product)
        elif filter_ is None:
            torch.add(product, bias[:, None, None], out=y[part])
        elif bias is None:
            torch.mul(product, filter_[part, :, None, None], out=y[part])
        else:
            torch.addcmul(bias[:, None, None], product, filter_[part, :, None, None], out=y[part])
    return y


def _differentiate_batch(m: Mixture, grad: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    x, weight, spatial_attention, channel_attention = m.input, m.weight[0], m.spatial_attention, m.channel_attention
    needs_x, needs_weight, _, _, needs_spatial, needs_channel, _ = needed
    windows = windows_of(x, weight.shape[2:], *m[7:10])
    scale = _scale(windows, spatial_attention, channel_attention)
    bank = weight.flatten(1)
    grad_x = zeros_padded(x, m.padding) if needs_x else None
    grad_bank = None
    # of the product of both attentions: Tensor[batch, in_channels, kernel_height, kernel_width]
    grad_scale = x.new_empty(len(x), *weight.shape[1:]) if needs_spatial or needs_channel else None
    for part in sample_parts(windows):
        shown, own_scale = windows[part], None if scale is None else scale[part]
        product = scratch('grad_product', (len(bank), len(shown), *windows.shape[4:]), bank)
        product.copy_(grad[part].transpose(0, 1))
        product = product.flatten(1)
        if needs_weight:
            of_part = torch.mm(product, _batch_columns(shown, own_scale).t())
            grad_bank = of_part if grad_bank is None else grad_bank.add_(of_part)
        if grad_x is None and grad_scale is None:
            continue
        grad_columns = torch.mm(bank.t(), product,
                                out=scratch('grad_columns', (bank.shape[1], product.shape[1]), bank))
        grad_windows = _by_sample(grad_columns, shown).unflatten(1, weight.shape[1:])
        if grad_scale is not None:
            shown = _by_sample(_batch_columns(shown, grad_windows), shown)  # over the columns, as above
            grad_scale[part] = shown.sum((2, 3)).unflatten(1, weight.shape[1:])
        if grad_x is not None:
            add_windows(grad_x[part], grad_windows, own_scale, m.stride, m.dilation)
    grad_spatial = grad_channel = None
    if needs_spatial:
        own = grad_scale if channel_attention is None else grad_scale * channel_attention[:, :, None, None]
        grad_spatial = own.sum(1).flatten(1)
    if needs_channel:
        own = grad_scale if spatial_attention is None else grad_scale * spatial_attention.reshape(
            len(x), 1, *weight.shape[2:])
        grad_channel = own.sum((2, 3))
    return (without_padding(grad_x, m.padding) if needs_x else None,
            grad_bank.view_as(m.weight) if needs_weight else None, None, None, grad_spatial, grad_channel, None)


def _scale(windows: Tensor, spatial_attention: Tensor | None, channel_attention: Tensor | None) -> Tensor | None:
    """α_s ⊗ α_c, to be multiplied with the windows."""
    scale = None
    if spatial_attention is not None:
        scale = spatial_attention.reshape(len(windows), 1, *windows.shape[2:4], 1, 1)
    if channel_attention is not None:
        channel = channel_attention[:, :, None, None, None, None]
        scale = channel if scale is None else scale * channel
    return scale


def _batch_columns(windows: Tensor, scale: Tensor | None) -> Tensor:
    """Tensor[channels * kernel_height * kernel_width, samples * out_height * out_width]"""
    batch, channels, *kernel_size, height, width = windows.shape
    columns = scratch('columns', (channels, *kernel_size, batch, height, width), windows)
    _scaled(windows, scale, columns.permute(3, 0, 1, 2, 4, 5))
    return columns.view(windows[0, ..., 0, 0].numel(), -1)


def _by_sample(rows: Tensor, windows: Tensor) -> Tensor:
    """Tensor[samples, rows, out_height, out_width], a view"""
    return rows.unflatten(1, (len(windows), *windows.shape[4:])).transpose(0, 1)


# Windows and columns.


def sample_parts(windows: Tensor) -> list[slice]:
    """The samples in parts whose columns, of ``windows`` (see :func:`windows_of`), are at most ``COLUMN_ELEMENTS``."""
    batch, per_sample = len(windows), windows[0].numel()
    samples = max(1, COLUMN_ELEMENTS // max(per_sample, 1))
    return [slice(start, min(start + samples, batch)) for start in range(0, batch, samples)]


def _channel_blocks(bank: Tensor, samples: int) -> list[slice]:
    _, channels, length = bank.shape
    block = max(8, BLOCK_ELEMENTS // (samples * length))
    count = max(1, round(channels / block))
    block = -(-channels // count)
    return [slice(start, min(start + block, channels)) for start in range(0, channels, block)]


def windows_of(x: Tensor, kernel_size: IntPair, stride: IntPair, padding: IntPair, dilation: IntPair) -> Tensor:
    """What the kernel sees at each place, a view: Tensor[batch, channels, kh, kw, out_height, out_width]."""
    kernel_height, kernel_width = kernel_size
    if (kernel_height, kernel_width) == (1, 1):
        return pointwise_columns(x, stride, padding)[:, :, None, None]
    x = pad_zeros(x, padding)
    if x.shape[2] <= dilation[0] * (kernel_height - 1) or x.shape[3] <= dilation[1] * (kernel_width - 1):
        raise ValueError(f'input must not be smaller than the kernel, but its padded size is {tuple(x.shape[2:])} with '
                         f'kernel size {tuple(kernel_size)} and dilation {dilation}')
    rows = x.unfold(2, dilation[0] * (kernel_height - 1) + 1, stride[0])
    windows = rows.unfold(3, dilation[1] * (kernel_width - 1) + 1, stride[1])
    return windows[..., ::dilation[0], ::dilation[1]].permute(0, 1, 4, 5, 2, 3)


def _columns(windows: Tensor, scale: Tensor | None) -> Tensor:
    """Tensor[batch, channels * kh * kw, out_height * out_width], times the scale."""
    if scale is None and windows.shape[2:4] == (1, 1):
        return windows.flatten(4).flatten(1, 3)
    return _scaled(windows, scale, scratch('columns', windows.shape, windows)).flatten(4).flatten(1, 3)


def _scaled(windows: Tensor, scale: Tensor | None, target: Tensor) -> Tensor:
    """The windows, times their scale if there is one, written to ``target``."""
    return target.copy_(windows) if scale is None else torch.mul(windows, scale, out=target)


def add_windows(grad_x: Tensor, grad_windows: Tensor, scale: Tensor | None, stride: IntPair,
                dilation: IntPair) -> None:
    """Add the gradients of the windows, times what scaled them, to the places that they show."""
    _, _, kernel_height, kernel_width, height, width = grad_windows.shape
    for i in range(kernel_height):
        for j in range(kernel_width):
            top, left = i * dilation[0], j * dilation[1]
            place = grad_x[:, :, top:top + stride[0] * (height - 1) + 1:stride[0],
                           left:left + stride[1] * (width - 1) + 1:stride[1]]
            if scale is None:
                place.add_(grad_windows[:, :, i, j])
            else:
                place.addcmul_(grad_windows[:, :, i, j], scale[:, :, i % scale.shape[2], j % scale.shape[3]])


SAMPLE_PRODUCTS = Backend(_multiply_samples, backward=_differentiate_samples)
BATCH_PRODUCT = Backend(_multiply_batch, backward=_differentiate_batch)


MIXTURE_CONV.backends['bmm'] = Backend(im2col, lambda m: needs_shared_attentions(m) or (
    None if m.groups == m.weight.shape[3] * m.weight.shape[4] == 1 else 'kernels larger than 1×1, or groups'))
MIXTURE_CONV.backends['im2col'] = Backend(
    im2col, lambda m: needs_shared_attentions(m) or (None if m.groups == 1 else 'groups'))

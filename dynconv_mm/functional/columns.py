"""A mixture of kernels as matrix products over the columns of the input (im2col).

The kernels are mixed for a block of output channels at a time, which stays in the processor's cache, and again in
the backward pass. Only the input is kept for it.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .sample_conv import IntPair, pointwise_columns, pointwise_product
from .second_order import differentiable_gradients
from .tracing import is_traced
from .workspace import workspace

# Elements of a block of mixed kernels, and of the columns that are made at once.
BLOCK_ELEMENTS = 2**21
COLUMN_ELEMENTS = 2**22


def columns_conv2d(x: Tensor, weight: Tensor, kernel_attention: Tensor | None, spatial_attention: Tensor | None,
                   stride: IntPair, padding: IntPair, dilation: IntPair) -> Tensor:
    r"""Convolve sample b by :math:`\sum_i \alpha^w_{bi} \alpha^s_b \odot W_i`, without groups.

    Args:
        x (Tensor[batch, in_channels, height, width]): features.
        weight (Tensor[n, out_channels, in_channels, kernel_height, kernel_width]): n is 1 without
            ``kernel_attention``.
        kernel_attention (Tensor[batch, n], optional): α_w.
        spatial_attention (Tensor[batch, kernel_height * kernel_width], optional): α_s.
        stride, padding, dilation: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]
    """
    if is_traced():
        return _by_autograd(x, weight, kernel_attention, spatial_attention, stride, padding, dilation)
    return _ColumnsConv.apply(x, weight, kernel_attention, spatial_attention, stride, padding, dilation)


def _by_autograd(x: Tensor, weight: Tensor, kernel_attention: Tensor | None, spatial_attention: Tensor | None,
                 stride: IntPair, padding: IntPair, dilation: IntPair) -> Tensor:
    """The same in operations that autograd and the compiler know, with all kernels and columns at once."""
    windows = windows_of(x, weight.shape[3:], stride, padding, dilation)
    if spatial_attention is not None:
        windows = windows * spatial_attention.reshape(x.shape[0], 1, *weight.shape[3:], 1, 1)
    kernels = weight.flatten(2)
    if kernel_attention is not None:
        kernels = (kernel_attention @ kernels.flatten(1)).view(-1, *kernels.shape[1:])
    return pointwise_product(kernels, windows.flatten(1, 3))


class _ColumnsConv(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, kernel_attention: Tensor | None, spatial_attention: Tensor | None,
                stride: IntPair, padding: IntPair, dilation: IntPair) -> Tensor:
        ctx.save_for_backward(x, weight, kernel_attention, spatial_attention)
        ctx.geometry = stride, padding, dilation
        windows = windows_of(x, weight.shape[3:], *ctx.geometry)
        batch, height, width, out_channels = len(x), *windows.shape[4:], weight.shape[1]
        bank = weight.flatten(2)
        y = x.new_empty(batch, out_channels, height * width)
        for part in sample_parts(windows):
            columns = _columns(windows[part], spatial_attention if spatial_attention is None
                               else spatial_attention[part])
            if kernel_attention is None:
                torch.bmm(bank.expand(len(columns), -1, -1), columns, out=y[part])
                continue
            for block in _channel_blocks(bank, len(columns)):
                kernels = _mix(kernel_attention[part], bank[:, block])
                if block == slice(0, out_channels):
                    torch.bmm(kernels, columns, out=y[part])
                else:
                    y[part, block] = torch.bmm(kernels, columns)
        # no view, which an in-place activation behind it could not change
        return torch.ops.aten._unsafe_view(y, (batch, out_channels, height, width))

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple:
        x, weight, kernel_attention, spatial_attention = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*differentiable_gradients(lambda *tensors: _by_autograd(*tensors, *ctx.geometry),
                                              ctx.saved_tensors, ctx.needs_input_grad[:4], grad_output),
                    None, None, None)
        needs_x, needs_weight, needs_kernel, needs_spatial = ctx.needs_input_grad[:4]
        windows = windows_of(x, weight.shape[3:], *ctx.geometry)
        bank = weight.flatten(2)
        grad = grad_output.flatten(2)
        grad_x = zeros_padded(x, ctx.geometry[1]) if needs_x else None
        grad_bank = torch.zeros_like(bank, memory_format=torch.contiguous_format) if needs_weight else None
        grad_kernel = torch.zeros_like(kernel_attention) if needs_kernel else None
        grad_spatial = torch.empty_like(spatial_attention) if needs_spatial else None
        for part in sample_parts(windows):
            spatial = None if spatial_attention is None else spatial_attention[part]
            columns = _columns(windows[part], spatial)
            grad_columns = None
            if needs_x or needs_spatial:
                # written by the first block, added to by the others
                grad_columns = workspace('grad_columns', columns.shape, columns)
            if kernel_attention is None:
                if needs_weight:
                    grad_bank[0] += _sum_of_products(grad[part], columns)
                if grad_columns is not None:
                    torch.bmm(bank.transpose(1, 2).expand(len(columns), -1, -1), grad[part], out=grad_columns)
            else:
                attention = kernel_attention[part]
                for block in _channel_blocks(bank, len(columns)):
                    _backward_block(bank[:, block], attention, columns, grad[part, block],
                                    grad_bank[:, block] if needs_weight else None,
                                    grad_kernel[part] if needs_kernel else None, grad_columns, block.start == 0)
            if grad_columns is None:
                continue
            grad_windows = grad_columns.view(windows[part].shape)
            if needs_spatial:
                grad_spatial[part] = (grad_windows * windows[part]).sum((1, 4, 5)).flatten(1)
            if needs_x:
                add_windows(grad_x[part], grad_windows, None if spatial is None else spatial.reshape(
                    -1, 1, *weight.shape[3:], 1, 1), ctx.geometry[0], ctx.geometry[2])
        if needs_x:
            grad_x = without_padding(grad_x, ctx.geometry[1])
        return (grad_x, grad_bank.view_as(weight) if needs_weight else None, grad_kernel, grad_spatial, None, None,
                None)


def _backward_block(bank: Tensor, attention: Tensor, columns: Tensor, grad: Tensor, grad_bank: Tensor | None,
                    grad_kernel: Tensor | None, grad_columns: Tensor | None, is_first: bool) -> None:
    """Add up what a block of output channels has to say to the gradients."""
    n = len(bank)
    if grad_bank is not None or grad_kernel is not None:
        # the gradients of each sample's own kernel
        shape = len(attention), *bank.shape[1:]
        grad_kernels = torch.bmm(grad, columns.transpose(1, 2), out=workspace('grad_kernels', shape, columns))
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
                     out=workspace('kernels', (shape[0], shape[1] * shape[2]), bank))
    return mixed.view(shape)


def sample_parts(windows: Tensor) -> list[slice]:
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
    if padding != (0, 0):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows = x.unfold(2, dilation[0] * (kernel_height - 1) + 1, stride[0])
    windows = rows.unfold(3, dilation[1] * (kernel_width - 1) + 1, stride[1])
    return windows[..., ::dilation[0], ::dilation[1]].permute(0, 1, 4, 5, 2, 3)


def _columns(windows: Tensor, spatial_attention: Tensor | None) -> Tensor:
    """Tensor[batch, channels * kh * kw, out_height * out_width], each row times its α_s."""
    batch, channels, kernel_height, kernel_width, height, width = windows.shape
    shape = batch, channels * kernel_height * kernel_width, height * width
    if spatial_attention is not None:
        spatial_attention = spatial_attention.reshape(batch, 1, kernel_height, kernel_width, 1, 1)
    if spatial_attention is None and (kernel_height, kernel_width) == (1, 1):
        return windows.reshape(shape)
    columns = workspace('columns', windows.shape, windows)
    if spatial_attention is None:
        columns.copy_(windows)
    else:
        torch.mul(windows, spatial_attention, out=columns)
    return columns.view(shape)


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


def zeros_padded(x: Tensor, padding: IntPair) -> Tensor:
    batch, channels, height, width = x.shape
    return x.new_zeros(batch, channels, height + 2 * padding[0], width + 2 * padding[1])


def without_padding(x: Tensor, padding: IntPair) -> Tensor:
    height, width = x.shape[2:]
    return x[:, :, padding[0]:height - padding[0], padding[1]:width - padding[1]]

"""A convolution by one kernel for all samples, between attentions of each sample, as one matrix product.

The columns of all samples lie side by side, so that the product is as wide as it can be: where maps are small, the
library multiplies eight narrow matrices at two thirds of the speed of a wide one. What scales the input is multiplied
in as the columns are written, what scales the output as they are read.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .columns import add_windows, sample_parts, windows_of, without_padding, zeros_padded
from .sample_conv import IntPair, pointwise_product
from .second_order import differentiable_gradients
from .tracing import is_traced
from .workspace import workspace


def shared_columns_conv2d(x: Tensor, weight: Tensor, spatial_attention: Tensor | None,
                          channel_attention: Tensor | None, filter_attention: Tensor | None, bias: Tensor | None,
                          stride: IntPair, padding: IntPair, dilation: IntPair) -> Tensor:
    r"""Convolve sample b by :math:`\alpha^f_b \odot \alpha^c_b \odot \alpha^s_b \odot W`, without groups.

    Args:
        x (Tensor[batch, in_channels, height, width]): features.
        weight (Tensor[out_channels, in_channels, kernel_height, kernel_width]): W.
        spatial_attention (Tensor[batch, kernel_height * kernel_width], optional): α_s.
        channel_attention (Tensor[batch, in_channels], optional): α_c.
        filter_attention (Tensor[batch, out_channels], optional): α_f.
        bias (Tensor[out_channels], optional): added.
        stride, padding, dilation: as in :func:`torch.nn.functional.conv2d`.

    Returns:
        Tensor[batch, out_channels, out_height, out_width]
    """
    if is_traced():
        return _scaled(_by_autograd(x, weight, spatial_attention, channel_attention, stride, padding, dilation),
                       filter_attention, bias)
    tensors = x, weight, spatial_attention, channel_attention
    output_tensors = filter_attention, bias
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*tensors, *output_tensors)):
        # autograd scales the output, and keeps what it needs for that
        return _scaled(_SharedColumns.apply(*tensors, stride, padding, dilation), *output_tensors)
    return _convolve(*tensors, *output_tensors, stride, padding, dilation)


def _scaled(y: Tensor, filter_attention: Tensor | None, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """``y`` times α_f, plus the bias."""
    if filter_attention is not None:
        filter_attention = filter_attention[:, :, None, None]
        if bias is not None:
            return torch.addcmul(bias[:, None, None], y, filter_attention, out=out)
        return torch.mul(y, filter_attention, out=out)
    if bias is not None:
        return torch.add(y, bias[:, None, None], out=out)
    return y if out is None else out.copy_(y)


def _by_autograd(x: Tensor, weight: Tensor, spatial_attention: Tensor | None, channel_attention: Tensor | None,
                 stride: IntPair, padding: IntPair, dilation: IntPair) -> Tensor:
    """The same in operations that autograd and the compiler know, the scaling of the output left out."""
    windows = windows_of(x, weight.shape[2:], stride, padding, dilation)
    scale = _scale(windows, spatial_attention, channel_attention)
    if scale is not None:
        windows = windows * scale
    return pointwise_product(weight.flatten(1)[None], windows.flatten(1, 3))


def _convolve(x: Tensor, weight: Tensor, spatial_attention: Tensor | None, channel_attention: Tensor | None,
              filter_attention: Tensor | None, bias: Tensor | None, stride: IntPair, padding: IntPair,
              dilation: IntPair) -> Tensor:
    windows = windows_of(x, weight.shape[2:], stride, padding, dilation)
    scale = _scale(windows, spatial_attention, channel_attention)
    bank = weight.flatten(1)
    y = x.new_empty(len(x), len(bank), *windows.shape[4:])
    for part in sample_parts(windows):
        columns = _columns(windows[part], scale if scale is None else scale[part])
        product = torch.mm(bank, columns, out=workspace('product', (len(bank), columns.shape[1]), columns))
        _scaled(_by_sample(product, windows[part]), None if filter_attention is None else filter_attention[part],
                bias, out=y[part])
    return y


class _SharedColumns(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, spatial_attention: Tensor | None, channel_attention: Tensor | None,
                *geometry: IntPair) -> Tensor:
        ctx.save_for_backward(x, weight, spatial_attention, channel_attention)
        ctx.geometry = geometry
        return _convolve(x, weight, spatial_attention, channel_attention, None, None, *geometry)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple:
        x, weight, spatial_attention, channel_attention = ctx.saved_tensors
        needs_x, needs_weight, needs_spatial, needs_channel = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            return (*differentiable_gradients(lambda *tensors: _by_autograd(*tensors, *ctx.geometry),
                                              ctx.saved_tensors, ctx.needs_input_grad[:4], grad_output),
                    None, None, None)
        stride, padding, dilation = ctx.geometry
        windows = windows_of(x, weight.shape[2:], stride, padding, dilation)
        scale = _scale(windows, spatial_attention, channel_attention)
        bank = weight.flatten(1)
        grad_x = zeros_padded(x, padding) if needs_x else None
        grad_bank = torch.zeros_like(bank, memory_format=torch.contiguous_format) if needs_weight else None
        # of the product of both attentions: Tensor[batch, in_channels, kernel_height, kernel_width]
        grad_scale = x.new_empty(len(x), *weight.shape[1:]) if needs_spatial or needs_channel else None
        for part in sample_parts(windows):
            shown, own_scale = windows[part], None if scale is None else scale[part]
            grad = workspace('grad_product', (len(bank), len(shown), *windows.shape[4:]), bank)
            grad.copy_(grad_output[part].transpose(0, 1))
            grad = grad.flatten(1)
            if needs_weight:
                grad_bank.addmm_(grad, _columns(shown, own_scale).t())
            if grad_x is None and grad_scale is None:
                continue
            grad_columns = torch.mm(bank.t(), grad, out=workspace('grad_columns', (bank.shape[1], grad.shape[1]), bank))
            grad_windows = _by_sample(grad_columns, shown).unflatten(1, weight.shape[1:])
            if grad_scale is not None:
                grad_scale[part] = (grad_windows * shown).sum((4, 5))
            if grad_x is not None:
                add_windows(grad_x[part], grad_windows, own_scale, stride, dilation)
        grad_spatial = grad_channel = None
        if needs_spatial:
            own = grad_scale if channel_attention is None else grad_scale * channel_attention[:, :, None, None]
            grad_spatial = own.sum(1).flatten(1)
        if needs_channel:
            own = grad_scale if spatial_attention is None else grad_scale * spatial_attention.reshape(
                len(x), 1, *weight.shape[2:])
            grad_channel = own.sum((2, 3))
        return (without_padding(grad_x, padding) if needs_x else None,
                grad_bank.view_as(weight) if needs_weight else None, grad_spatial, grad_channel, None, None, None)


def _scale(windows: Tensor, spatial_attention: Tensor | None, channel_attention: Tensor | None) -> Tensor | None:
    """α_s ⊗ α_c, to be multiplied with the windows."""
    scale = None
    if spatial_attention is not None:
        scale = spatial_attention.reshape(len(windows), 1, *windows.shape[2:4], 1, 1)
    if channel_attention is not None:
        channel = channel_attention[:, :, None, None, None, None]
        scale = channel if scale is None else scale * channel
    return scale


def _columns(windows: Tensor, scale: Tensor | None) -> Tensor:
    """Tensor[channels * kernel_height * kernel_width, samples * out_height * out_width]"""
    batch, channels, *kernel_size, height, width = windows.shape
    columns = workspace('columns', (channels, *kernel_size, batch, height, width), windows)
    target = columns.permute(3, 0, 1, 2, 4, 5)
    if scale is None:
        target.copy_(windows)
    else:
        torch.mul(windows, scale, out=target)
    return columns.view(windows[0, ..., 0, 0].numel(), -1)


def _by_sample(rows: Tensor, windows: Tensor) -> Tensor:
    """Tensor[samples, rows, out_height, out_width], a view"""
    return rows.unflatten(1, (len(windows), *windows.shape[4:])).transpose(0, 1)

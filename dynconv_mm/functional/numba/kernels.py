"""The kernels: small operations that follow one another, as one call each.

Arguments that have the names of tensors are their addresses; 0 stands for one that is not given. ``zero`` is the one of
``ZEROS`` that has the tensors' type, which makes it the type of the computation.
"""
from __future__ import annotations

import numpy as np

from .pointers import compiled, pointer


@compiled
def affine_of(zero, mean, variance, gain, shift, eps, channel):
    """What a norm with running statistics does to a channel: a scale and an offset.

    Without ``mean`` there is no norm, and ``shift`` is a bias.

    Shape:
        mean, variance, gain, shift [more than ``channel``].
    """
    scale, offset = 1., 0.
    if mean:
        scale /= np.sqrt(pointer(variance, zero)[channel] + eps)
        if gain:
            scale *= pointer(gain, zero)[channel]
        offset -= scale * pointer(mean, zero)[channel]
    if shift:
        offset += pointer(shift, zero)[channel]
    return scale, offset


@compiled
def attend(zero, features, batch, channels, pixels, fc, hidden, mean, variance, gain, shift, eps, heads, bias, logits,
           kernels, temperature, attentions):
    """Pool → FC → batch norm → ReLU → heads → sigmoid, but softmax for the last ``kernels`` logits.

    Without ``mean`` there is no norm, and ``shift`` is the bias of the FC.

    Shape:
        features [batch, channels, pixels], fc [hidden, channels], mean, variance, gain, shift [hidden],
        heads [logits, hidden], bias [logits], temperature [1]; attentions [batch, logits], the result.
    """
    x, w, v, b = pointer(features, zero), pointer(fc, zero), pointer(heads, zero), pointer(bias, zero)
    result, tau = pointer(attentions, zero), pointer(temperature, zero)[0]
    pooled, relu = np.empty((batch, channels), type(zero)), np.empty((batch, hidden), type(zero))
    for row in range(batch * channels):
        total = zero
        for pixel in range(row * pixels, (row + 1) * pixels):
            total += x[pixel]
        pooled[row // channels, row % channels] = total / pixels
    for unit in range(hidden):
        scale, offset = affine_of(zero, mean, variance, gain, shift, eps, unit)
        for sample in range(batch):
            total = zero
            for channel in range(channels):
                total += w[unit * channels + channel] * pooled[sample, channel]
            value = total * scale + offset
            relu[sample, unit] = 0 if value <= 0 else value  # NaN stays
    for logit in range(logits):
        for sample in range(batch):
            total = b[logit]
            for unit in range(hidden):
                total += v[logit * hidden + unit] * relu[sample, unit]
            total /= tau
            if logit < logits - kernels:
                total = 1 / (1 + np.exp(-total))
            result[sample * logits + logit] = total
    for end in range(logits, (batch if kernels else 0) * logits + 1, logits):
        highest = result[end - kernels]
        for i in range(end - kernels, end):
            highest = max(highest, result[i])
        total = zero
        for i in range(end - kernels, end):
            result[i] = np.exp(result[i] - highest)
            total += result[i]
        for i in range(end - kernels, end):
            result[i] /= total


@compiled
def scale_and_shift(zero, mean, variance, gain, bias, eps, channels, affine):
    """A batch norm's running statistics as a scale and a shift.

    Shape:
        mean, variance, gain, bias [channels]; affine [2, channels], the result.
    """
    result = pointer(affine, zero)
    for channel in range(channels):
        result[channel], result[channels + channel] = affine_of(zero, mean, variance, gain, bias, eps, channel)


@compiled
def mix_and_scale(zero, bank, batch, n, groups, filters, channels, area, kernel, kernel_stride, spatial,
                  spatial_stride, channel, channel_stride, filter_, filter_stride, mixed):
    """Each sample's Σ_i α_wi W_i times the attentions that all kernels share.

    Strides are those between samples.

    Shape:
        bank [n, groups·filters, channels, area], kernel [batch, n], spatial [batch, area],
        channel [batch, groups·channels], filter_ [batch, groups·filters];
        mixed [batch, groups·filters, channels, area], the result.
    """
    weights, result = pointer(bank, zero), pointer(mixed, zero)
    kernels, spatials = pointer(kernel, zero), pointer(spatial, zero)
    of_channels, of_filters = pointer(channel, zero), pointer(filter_, zero)
    row = channels * area
    whole = groups * filters * row
    columns = np.empty((batch, row), type(zero))
    for group in range(groups):
        for sample in range(batch):
            for i in range(channels):
                for j in range(area):
                    scale = spatials[sample * spatial_stride + j] if spatial else type(zero)(1)
                    if channel:
                        scale *= of_channels[sample * channel_stride + group * channels + i]
                    columns[sample, i * area + j] = scale
        # a filter of all kernels for all samples, so that it is read from memory once
        for number in range(group * filters, (group + 1) * filters):
            start = number * row
            for sample in range(batch):
                to, column = sample * whole + start, columns[sample]
                scale = of_filters[sample * filter_stride + number] if filter_ else type(zero)(1)
                if kernel:
                    # four at a time, as memory is what it waits for; those that there are not count nothing
                    at = sample * kernel_stride
                    a0 = scale * kernels[at]
                    a1 = scale * kernels[at + 1] if n > 1 else zero
                    a2 = scale * kernels[at + 2] if n > 2 else zero
                    a3 = scale * kernels[at + 3] if n > 3 else zero
                    w1 = start + (whole if n > 1 else 0)
                    w2 = start + (2 * whole if n > 2 else 0)
                    w3 = start + (3 * whole if n > 3 else 0)
                    for j in range(row):
                        result[to + j] = column[j] * (a0 * weights[start + j] + a1 * weights[w1 + j]
                                                      + a2 * weights[w2 + j] + a3 * weights[w3 + j])
                    for i in range(4, n):
                        further = scale * kernels[at + i]
                        for j in range(row):
                            result[to + j] += further * weights[i * whole + start + j] * column[j]
                else:
                    for j in range(row):
                        result[to + j] = scale * weights[start + j] * column[j]


@compiled
def attend_and_scale(zero, features, channels, pixels, fc, hidden, mean, variance, gain, shift, eps, heads, bias,
                     logits, temperature, kernels, filter_at, out_channels, norm_mean, norm_variance, norm_gain,
                     norm_shift, norm_eps, conv_bias, attentions, scale, offset):
    """One sample's attentions, and what the filter attention and a norm behind the convolution do to its output.

    ``filter_at`` is where the filter attention's logits begin, -1 without one.

    Shape:
        features [channels, pixels]; norm_mean, norm_variance, norm_gain, norm_shift, conv_bias [out_channels]; the
        others as in :func:`attend`. The results: attentions [logits]; scale and offset [out_channels].
    """
    attend(zero, features, 1, channels, pixels, fc, hidden, mean, variance, gain, shift, eps, heads, bias, logits,
           kernels, temperature, attentions)
    values, biases = pointer(attentions, zero), pointer(conv_bias, zero)
    scales, offsets = pointer(scale, zero), pointer(offset, zero)
    for number in range(out_channels):
        of_norm, added = affine_of(zero, norm_mean, norm_variance, norm_gain, norm_shift, norm_eps, number)
        if conv_bias:
            added += biases[number] * of_norm
        scales[number] = of_norm * values[filter_at + number] if filter_at >= 0 else of_norm
        offsets[number] = added


@compiled
def attended_kernel(zero, features, channels, pixels, fc, hidden, mean, variance, gain, shift, eps, heads, bias, logits,
                    temperature, kernels, filter_at, out_channels, norm_mean, norm_variance, norm_gain, norm_shift,
                    norm_eps, conv_bias, attentions, scale, offset, channel_at, spatial_at, bank, n, groups, area,
                    kernel):
    """One sample's kernel from its features: :func:`attend_and_scale`, then :func:`mix_and_scale`.

    ``channel_at`` and so on are where an attention's logits begin, -1 for one that there is not.

    Shape:
        kernel [out_channels, channels / groups, area]: the result; the others as in those functions.
    """
    attend_and_scale(zero, features, channels, pixels, fc, hidden, mean, variance, gain, shift, eps, heads, bias,
                     logits, temperature, kernels, filter_at, out_channels, norm_mean, norm_variance, norm_gain,
                     norm_shift, norm_eps, conv_bias, attentions, scale, offset)
    size = np.empty(1, type(zero)).itemsize
    mix_and_scale(zero, bank, 1, n, groups, out_channels // groups, channels // groups, area,
                  attentions + (logits - kernels) * size if kernels else 0, 0,
                  attentions + spatial_at * size if spatial_at >= 0 else 0, 0,
                  attentions + channel_at * size if channel_at >= 0 else 0, 0, scale, 0, kernel)

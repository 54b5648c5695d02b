"""The kernels of samples."""
from __future__ import annotations

import numpy as np

from .attention import affine_of
from .common import compiled, pointer


@compiled
def mix_and_scale(zero, bank, batch, n, groups, filters, channels, area, kernel, kernel_stride, spatial, spatial_stride,
                  channel, channel_stride, filter_, filter_stride, mean, variance, gain, shift, conv_bias, eps, mixed,
                  offset, first, last):
    """Each sample's Σ_i α_wi W_i times the attentions that all kernels share and the scale of a norm, and what that
    norm adds: of the filters from ``first`` to before ``last``.

    Strides are those between samples. Without ``mean`` there is no norm, and no offset is written.

    Shape:
        bank [n, groups·filters, channels, area], kernel [batch, n], spatial [batch, area],
        channel [batch, groups·channels], filter_ [batch, groups·filters], mean, variance, gain, shift and conv_bias
        [groups·filters]; the results: mixed [batch, groups·filters, channels, area], offset [groups·filters].
    """
    weights, result = pointer(bank, zero), pointer(mixed, zero)
    kernels, spatials = pointer(kernel, zero), pointer(spatial, zero)
    of_channels, of_filters = pointer(channel, zero), pointer(filter_, zero)
    row = channels * area
    whole = groups * filters * row
    columns = np.empty((batch, row), type(zero))
    # a filter of all kernels for all samples, so that it is read from memory once
    for number in range(first, last):
        if number == first or number % filters == 0:  # of another group
            for sample in range(batch):
                for i in range(channels):
                    for j in range(area):
                        scale = spatials[sample * spatial_stride + j] if spatial else type(zero)(1)
                        if channel:
                            scale *= of_channels[sample * channel_stride + number // filters * channels + i]
                        columns[sample, i * area + j] = scale
        start = number * row
        of_norm = type(zero)(1)
        if mean:
            of_norm, added = affine_of(zero, mean, variance, gain, shift, eps, number)
            if conv_bias:
                added += of_norm * pointer(conv_bias, zero)[number]
            pointer(offset, zero)[number] = added
        for sample in range(batch):
            to, column = sample * whole + start, columns[sample]
            scale = type(zero)(of_norm)
            if filter_:
                scale *= of_filters[sample * filter_stride + number]
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

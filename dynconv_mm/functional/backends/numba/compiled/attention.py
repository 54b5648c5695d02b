"""Attentions, and what a batch norm does to a channel."""
from __future__ import annotations

import numpy as np

from .common import compiled, pointer

SUMMED = 4096


@compiled
def affine_of(zero, mean, variance, gain, shift, eps, channel):
    """What a norm with running statistics does to a channel: a scale and an offset.

    Without ``mean`` there is no norm, and the scale is 1.

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
def attend(zero, features, batch, channels, pixels, fc, fc_bias, hidden, mean, variance, gain, shift, eps,
           temperature, heads):
    """Pool → FC → batch norm → ReLU → heads → sigmoid or softmax.

    ``heads`` are five numbers of each head: weight, bias, number of logits, over how many of them softmax is taken, 0
    where sigmoid is the activation, and the result.

    Shape:
        features [batch, channels, pixels], fc [hidden, channels], fc_bias, mean, variance, gain, shift [hidden],
        temperature [1]; of a head: weight [length, hidden], bias [length], result [batch, length].
    """
    x, w = pointer(features, zero), pointer(fc, zero)
    tau = pointer(temperature, zero)[0]
    pooled, relu = np.empty((batch, channels), type(zero)), np.empty((batch, hidden), type(zero))
    for row in range(batch * channels):
        total = zero
        for first in range(row * pixels, (row + 1) * pixels, SUMMED):
            part = zero  # of a few, since float32 cannot add to the sum of many
            for pixel in range(first, min(first + SUMMED, (row + 1) * pixels)):
                part += x[pixel]
            total += part
        pooled[row // channels, row % channels] = total / pixels
    for unit in range(hidden):
        scale, offset = affine_of(zero, mean, variance, gain, shift, eps, unit)
        if fc_bias:
            offset += scale * pointer(fc_bias, zero)[unit]
        for sample in range(batch):
            total = zero
            for channel in range(channels):
                total += w[unit * channels + channel] * pooled[sample, channel]
            value = total * scale + offset
            relu[sample, unit] = 0 if value <= 0 else value  # NaN stays
    for head in range(0, len(heads), 5):
        v, bias, length, span = pointer(heads[head], zero), heads[head + 1], heads[head + 2], heads[head + 3]
        result = pointer(heads[head + 4], zero)
        for logit in range(length):
            offset = pointer(bias, zero)[logit] if bias else zero
            for sample in range(batch):
                total = zero
                for unit in range(hidden):
                    total += v[logit * hidden + unit] * relu[sample, unit]
                total = (total + offset) / tau
                if not span:
                    total = 1 / (1 + np.exp(-total))
                result[sample * length + logit] = total
        for first in range(0, batch * length if span else 0, max(span, 1)):
            highest = result[first]
            for i in range(first, first + span):
                highest = max(highest, result[i])
            total = zero
            for i in range(first, first + span):
                result[i] = np.exp(result[i] - highest)
                total += result[i]
            for i in range(first, first + span):
                result[i] /= total

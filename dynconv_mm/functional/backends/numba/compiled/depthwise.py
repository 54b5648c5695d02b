"""Depthwise convolution, forward and backward, a map at a time in the cache, in the layout of ``involution.py``."""
from __future__ import annotations

import numpy as np

from .common import compiled, pointer
from .involution import LANES, buffers, copy_block, copy_maps, element_offsets, layout


@compiled
def convolve_maps(zero, features, weight, bias, output, kernels, biases, geometry, first, last):
    """The outputs, by kernel ``map % kernels`` and bias ``map % biases``, of the maps from ``first`` to before
    ``last``.

    Shape:
        features [maps, height, width], weight [kernels, kernel_height·kernel_width], bias [biases], output [maps,
        out_height, out_width]; geometry as in ``involution.py``.
    """
    offsets = element_offsets(geometry)
    columns, _, rows, _ = layout(geometry)
    planes, _, outputs = buffers(zero, 1, geometry)
    x, y = pointer(planes.ctypes.data, zero), pointer(outputs.ctypes.data, zero)
    w, b = pointer(weight, zero), pointer(bias, zero)
    elements = len(offsets)
    for number in range(first, last):
        kernel = number % kernels * elements
        offset = b[number % biases] if bias else zero
        copy_maps(x, pointer(features, zero), number, 1, geometry, False)
        for top in range(0, geometry[10], rows):
            start, length = top * columns, -(-min(rows, geometry[10] - top) * columns // LANES) * LANES
            for i in range(length):
                y[i] = offset
            for element in range(elements % 4):
                w0, x0 = w[kernel + element], start + offsets[element]
                for i in range(length):
                    y[i] += w0 * x[x0 + i]
            for element in range(elements % 4, elements, 4):  # as in `involve`
                at = kernel + element
                w0, w1, w2, w3 = w[at], w[at + 1], w[at + 2], w[at + 3]
                x0, x1 = start + offsets[element], start + offsets[element + 1]
                x2, x3 = start + offsets[element + 2], start + offsets[element + 3]
                for i in range(length):
                    y[i] += w0 * x[x0 + i] + w1 * x[x1 + i] + w2 * x[x2 + i] + w3 * x[x3 + i]
            copy_block(zero, y, pointer(output, zero), number, 1, top, geometry, True)
    return planes[0] + outputs[0]  # as in `involve`


@compiled
def convolve_gradients(zero, gradient, features, weight, of_features, of_weight, kernels, geometry, first, last):
    """The gradients of the features and of each map's kernel, from those of the outputs. Features that no output meets
    are left alone.

    Shape:
        gradient [maps, out_height, out_width], features and of_features [maps, height, width], weight [kernels,
        kernel_height·kernel_width], of_weight [maps, kernel_height·kernel_width].
    """
    offsets = element_offsets(geometry)
    columns, _, rows, _ = layout(geometry)
    planes, _, gradients = buffers(zero, 1, geometry)
    of_planes = np.zeros_like(planes)
    x, of_x = pointer(planes.ctypes.data, zero), pointer(of_planes.ctypes.data, zero)
    w, of_w, g = pointer(weight, zero), pointer(of_weight, zero), pointer(gradients.ctypes.data, zero)
    elements = len(offsets)
    for number in range(first, last):
        kernel, at = number % kernels * elements, number * elements
        copy_maps(x, pointer(features, zero), number, 1, geometry, False)
        of_planes[:] = zero
        for element in range(elements):
            of_w[at + element] = zero
        for top in range(0, geometry[10], rows):
            length = copy_block(zero, g, pointer(gradient, zero), number, 1, top, geometry, False)
            for element in range(elements):
                w0, x0, total = w[kernel + element], top * columns + offsets[element], zero
                for i in range(length):
                    total += g[i] * x[x0 + i]
                    of_x[x0 + i] += w0 * g[i]
                of_w[at + element] += total
        copy_maps(of_x, pointer(of_features, zero), number, 1, geometry, True)
    return planes[0] + of_planes[0] + gradients[0]  # as in `involve`

"""Depthwise convolution at stride 1 to a map of the same size, a map at a time in the cache.

A map lies in a buffer once for each column of the kernel, shifted by that column and with rows of zeros around, so
that the products of each element of the kernel are one loop over the whole map.
"""
from __future__ import annotations

import numpy as np

from .common import compiled, pointer


@compiled
def convolve_maps(zero, features, weight, bias, output, kernels, biases, geometry, first, last):
    """The outputs, by kernel ``map % kernels`` and bias ``map % biases``, of the maps from ``first`` to before
    ``last``.

    Shape:
        features, output [maps, height, width], weight [kernels, kernel_height·kernel_width], bias [biases];
        geometry: height, width, kernel_height, kernel_width, dilation_y, dilation_x.
    """
    height, width, kernel_height, kernel_width, dilation_y, dilation_x = geometry
    top, left = dilation_y * (kernel_height - 1) // 2, dilation_x * (kernel_width - 1) // 2
    x, w, b, y = pointer(features, zero), pointer(weight, zero), pointer(bias, zero), pointer(output, zero)
    area, elements, size = height * width, kernel_height * kernel_width, (height + 2 * top) * width
    buffer = np.zeros(kernel_width * size, type(zero))
    shifted = pointer(buffer.ctypes.data, zero)
    starts = np.empty(elements, np.int64)
    for i in range(kernel_height):
        for j in range(kernel_width):
            starts[i * kernel_width + j] = j * size + i * dilation_y * width
    for number in range(first, last):
        at = number * area
        for j in range(kernel_width):
            shift, start = j * dilation_x - left, j * size + top * width
            for i in range(max(0, -shift), min(area, area - shift)):
                shifted[start + i] = x[at + i + shift]
            for column in range(min(abs(shift), width)):  # what came from another row
                edge = start + (width - 1 - column if shift > 0 else column)
                for row in range(height):
                    shifted[edge + row * width] = zero
        kernel = number % kernels * elements
        offset = b[number % biases] if bias else zero
        # four at a time, and five the first time: more than eight rows the compiler would not work on side by side
        s0, w0 = starts[0], w[kernel]
        element = 1
        if elements > 4:
            s1, s2, s3, s4 = starts[1], starts[2], starts[3], starts[4]
            w1, w2, w3, w4 = w[kernel + 1], w[kernel + 2], w[kernel + 3], w[kernel + 4]
            element = 5
            for i in range(area):
                y[at + i] = (offset + w0 * shifted[s0 + i] + w1 * shifted[s1 + i] + w2 * shifted[s2 + i]
                             + w3 * shifted[s3 + i] + w4 * shifted[s4 + i])
        else:
            for i in range(area):
                y[at + i] = offset + w0 * shifted[s0 + i]
        while element + 4 <= elements:
            s0, s1, s2, s3 = starts[element], starts[element + 1], starts[element + 2], starts[element + 3]
            w0, w1 = w[kernel + element], w[kernel + element + 1]
            w2, w3 = w[kernel + element + 2], w[kernel + element + 3]
            for i in range(area):
                y[at + i] += (w0 * shifted[s0 + i] + w1 * shifted[s1 + i] + w2 * shifted[s2 + i]
                              + w3 * shifted[s3 + i])
            element += 4
        for rest in range(element, elements):
            s0, w0 = starts[rest], w[kernel + rest]
            for i in range(area):
                y[at + i] += w0 * shifted[s0 + i]
    return buffer[0]  # or the array would end where its address was taken

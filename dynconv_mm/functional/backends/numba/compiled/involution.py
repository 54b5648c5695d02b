"""Position-varying convolution, forward and backward, as shifted products of rows that stay in the cache.

A group's padded maps are split by the stride into phases: planes in which what an element of the kernels meets lies
as far apart as the outputs. Output (r, v) has the number r · columns + v, ``columns`` being those of a plane, and what
the element (i, j) of its kernel meets lies, for all outputs, the same offset further on. So the products of an element
with a block of rows are one loop over neighbours in memory; the columns behind the output's are computed for nothing.

In the compiled functions ``geometry`` is (height, width, kernel_height, kernel_width, stride_y, stride_x, dilation_y,
dilation_x, padding_y, padding_x, out_height, out_width), and ``first`` and ``last`` say which of all samples' groups
are worked on.
"""
from __future__ import annotations

import numpy as np

from .common import compiled, pointer

POSITIONS = 320  # of a block, about: its 7×7 kernels are 62 KB
LANES = 32  # loops are multiples of it long, as remainders are slow


@compiled
def layout(geometry):
    """Numbers in a row and in a plane; rows, and numbers, in a block."""
    kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x = geometry[2:8]
    out_height, out_width = geometry[10:]
    columns = out_width + (kernel_width - 1) * dilation_x // stride_x
    plane = columns * (out_height + (kernel_height - 1) * dilation_y // stride_y)
    rows = -(-out_height // -(-out_height * columns // POSITIONS))
    return columns, plane, rows, -(-rows * columns // LANES) * LANES


@compiled
def element_offsets(geometry):
    """What the kernel's elements meet: how much further than the output's own number."""
    kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x = geometry[2:8]
    columns, plane, _, _ = layout(geometry)
    offsets = np.empty(kernel_height * kernel_width, np.int64)
    for i in range(kernel_height):
        for j in range(kernel_width):
            y, x = i * dilation_y, j * dilation_x
            phase = y % stride_y * stride_x + x % stride_x
            offsets[i * kernel_width + j] = phase * plane + y // stride_y * columns + x // stride_x
    return offsets


@compiled
def buffers(zero, channels, geometry):
    """Zeros for a group's planes, and for a block of its kernels and of its outputs."""
    columns, plane, _, size = layout(geometry)
    _, _, kernel_height, kernel_width, stride_y, stride_x = geometry[:6]
    return (np.zeros(channels * stride_y * stride_x * plane + columns + LANES, type(zero)),
            np.zeros(kernel_height * kernel_width * size, type(zero)), np.zeros(channels * size, type(zero)))


@compiled
def copy_maps(planes, maps, number, channels, geometry, back):
    """The maps of the group of that number, [channels, height, width], into planes [channels, phases], or back.

    What no output meets is left alone.
    """
    height, width = geometry[:2]
    stride_y, stride_x = geometry[4:6]
    top, left = geometry[8:10]
    columns, plane, _, _ = layout(geometry)
    phases = stride_y * stride_x
    for phase in range(phases):
        # the map's first row and column in this phase, and where they lie in its plane
        y, x = (phase // stride_x - top) % stride_y, (phase % stride_x - left) % stride_x
        row, column = (y + top) // stride_y, (x + left) // stride_x
        length = min((width - x + stride_x - 1) // stride_x, columns - column)
        rows = min((height - y + stride_y - 1) // stride_y, plane // columns - row)
        for channel in range(channels):
            to = (channel * phases + phase) * plane + row * columns + column
            start = ((number * channels + channel) * height + y) * width + x
            for _ in range(rows):
                if back:
                    for i in range(length):
                        maps[start + i * stride_x] = planes[to + i]
                else:
                    for i in range(length):
                        planes[to + i] = maps[start + i * stride_x]
                to += columns
                start += stride_y * width


@compiled
def copy_block(zero, block, maps, number, channels, top, geometry, back):
    """Rows from ``top`` on of the maps of the group of that number, [channels, out_height, out_width], into a block
    [channels, rows], or back.

    Returns:
        int: how long the rows of the block are all together.
    """
    out_height, out_width = geometry[10:]
    columns, _, rows, size = layout(geometry)
    rows = min(rows, out_height - top)
    length = -(-rows * columns // LANES) * LANES
    for channel in range(channels):
        for row in range(rows):
            at = channel * size + row * columns
            start = ((number * channels + channel) * out_height + top + row) * out_width
            for i in range(out_width):
                if back:
                    maps[start + i] = block[at + i]
                else:
                    block[at + i] = maps[start + i]
        if not back:
            for i in range(channel * size + rows * columns, channel * size + length):
                block[i] = zero
    return length


@compiled
def involve(zero, features, weight, output, channels, geometry, first, last):
    """The outputs.

    Shape:
        features [samples' groups, channels, height, width], weight [samples' groups, elements, out_height, out_width],
        output [samples' groups, channels, out_height, out_width].
    """
    offsets = element_offsets(geometry)
    columns, plane, rows, size = layout(geometry)
    elements, whole = len(offsets), geometry[4] * geometry[5] * plane
    planes, kernels, outputs = buffers(zero, channels, geometry)
    x, w = pointer(planes.ctypes.data, zero), pointer(kernels.ctypes.data, zero)
    y = pointer(outputs.ctypes.data, zero)
    for number in range(first, last):
        copy_maps(x, pointer(features, zero), number, channels, geometry, False)
        for top in range(0, geometry[10], rows):
            length = copy_block(zero, w, pointer(weight, zero), number, elements, top, geometry, False)
            for channel in range(channels):
                start, to = channel * whole + top * columns, channel * size
                x0 = start + offsets[0]
                for i in range(length):
                    y[to + i] = w[i] * x[x0 + i]
                # four at a time, so that the sums are not written so often; squares of odd numbers leave none
                element = 1
                while element + 4 <= elements:
                    w0 = element * size
                    w1, w2, w3 = w0 + size, w0 + 2 * size, w0 + 3 * size
                    x0, x1 = start + offsets[element], start + offsets[element + 1]
                    x2, x3 = start + offsets[element + 2], start + offsets[element + 3]
                    for i in range(length):
                        y[to + i] += (w[w0 + i] * x[x0 + i] + w[w1 + i] * x[x1 + i] + w[w2 + i] * x[x2 + i]
                                      + w[w3 + i] * x[x3 + i])
                    element += 4
                for rest in range(element, elements):
                    w0, x0 = rest * size, start + offsets[rest]
                    for i in range(length):
                        y[to + i] += w[w0 + i] * x[x0 + i]
            copy_block(zero, y, pointer(output, zero), number, channels, top, geometry, True)
    return planes[0] + kernels[0] + outputs[0]  # or the arrays would end where their addresses were taken


@compiled
def involve_gradients(zero, gradient, weight, result, channels, geometry, first, last):
    """The gradients of the features, from those of the outputs. Those that no output meets are left alone.

    Shape:
        gradient [samples' groups, channels, out_height, out_width], weight [samples' groups, elements, out_height,
        out_width], result [samples' groups, channels, height, width].
    """
    offsets = element_offsets(geometry)
    columns, plane, rows, size = layout(geometry)
    elements, whole = len(offsets), geometry[4] * geometry[5] * plane
    planes, kernels, gradients = buffers(zero, channels, geometry)
    x, w = pointer(planes.ctypes.data, zero), pointer(kernels.ctypes.data, zero)
    g = pointer(gradients.ctypes.data, zero)
    for number in range(first, last):
        planes[:] = zero
        for top in range(0, geometry[10], rows):
            length = copy_block(zero, w, pointer(weight, zero), number, elements, top, geometry, False)
            copy_block(zero, g, pointer(gradient, zero), number, channels, top, geometry, False)
            for channel in range(channels):
                start, at = channel * whole + top * columns, channel * size
                for element in range(elements):
                    w0, x0 = element * size, start + offsets[element]
                    for i in range(length):
                        x[x0 + i] += w[w0 + i] * g[at + i]
        copy_maps(x, pointer(result, zero), number, channels, geometry, True)
    return planes[0] + kernels[0] + gradients[0]  # as in `involve`


@compiled
def kernel_gradients(zero, gradient, features, result, channels, geometry, first, last):
    """The gradients of the kernels, from those of the outputs.

    Shape:
        gradient [samples' groups, channels, out_height, out_width], features [samples' groups, channels, height,
        width], result [samples' groups, elements, out_height, out_width].
    """
    offsets = element_offsets(geometry)
    columns, plane, rows, size = layout(geometry)
    elements, whole = len(offsets), geometry[4] * geometry[5] * plane
    planes, kernels, gradients = buffers(zero, channels, geometry)
    x, w = pointer(planes.ctypes.data, zero), pointer(kernels.ctypes.data, zero)
    g = pointer(gradients.ctypes.data, zero)
    for number in range(first, last):
        copy_maps(x, pointer(features, zero), number, channels, geometry, False)
        for top in range(0, geometry[10], rows):
            length = copy_block(zero, g, pointer(gradient, zero), number, channels, top, geometry, False)
            start = top * columns
            for element in range(elements):
                to, x0 = element * size, start + offsets[element]
                for i in range(length):
                    w[to + i] = x[x0 + i] * g[i]
                channel = 1
                while channel + 4 <= channels:
                    g0 = channel * size
                    g1, g2, g3 = g0 + size, g0 + 2 * size, g0 + 3 * size
                    x0 += whole
                    x1, x2, x3 = x0 + whole, x0 + 2 * whole, x0 + 3 * whole
                    for i in range(length):
                        w[to + i] += (x[x0 + i] * g[g0 + i] + x[x1 + i] * g[g1 + i] + x[x2 + i] * g[g2 + i]
                                      + x[x3 + i] * g[g3 + i])
                    x0 = x3
                    channel += 4
                for rest in range(channel, channels):
                    g0 = rest * size
                    x0 += whole
                    for i in range(length):
                        w[to + i] += x[x0 + i] * g[g0 + i]
            copy_block(zero, w, pointer(result, zero), number, elements, top, geometry, True)
    return planes[0] + kernels[0] + gradients[0]  # as in `involve`

"""What a backend costs for a mixture of kernels, estimated from the sizes of what it computes and moves.

The time is a sum over :data:`QUANTITIES`, each times a coefficient of the backend; ``tools/benchmark.py --calibrate``
measures layers, fits the coefficients and writes them to a file ``costs_….json`` as those beside this one. No clock
enters, so a run that is repeated takes the same backends.
"""
from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

COSTS_FILE = Path(__file__).with_name('costs_cpu.json')
QUANTITIES = ('call', 'products', 'bank', 'kernels', 'input', 'output', 'columns')
# Where costs have not been measured: the first of these that does not refuse.
GPU_ORDER = ('triton', 'shared', 'bmm', 'grouped')
# Elements of a kernel that are scaled in less time than it takes to call the operators that go without.
LARGE_KERNEL = 2**17


class Shape(NamedTuple):
    """All that the cost of a mixture depends on."""

    batch: int
    kernel_num: int
    in_channels: int
    out_channels: int
    groups: int
    kernel_size: tuple[int, int]
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    is_training: bool

    @property
    def kind(self) -> str:
        """'pointwise', 'depthwise', 'grouped' or 'dense', in 'inference' or 'training'."""
        if self.groups > 1:
            kind = 'depthwise' if self.groups == self.in_channels else 'grouped'
        else:
            kind = 'pointwise' if self.kernel_size == (1, 1) else 'dense'
        return f'{kind} {"training" if self.is_training else "inference"}'

    def quantities(self) -> tuple[float, ...]:
        """In the order of :data:`QUANTITIES`: one call, and millions of multiply-adds, and of elements in all n
        kernels, in one kernel for each sample, in the input, in the output and in the columns of the input."""
        area = self.kernel_size[0] * self.kernel_size[1]
        pixels = self.output_size[0] * self.output_size[1]
        kernel = self.out_channels * self.in_channels // self.groups * area
        columns = 0 if area == 1 else self.batch * self.in_channels * area * pixels
        counts = (self.batch * kernel * pixels, self.kernel_num * kernel, self.batch * kernel,
                  self.batch * self.in_channels * self.input_size[0] * self.input_size[1],
                  self.batch * self.out_channels * pixels, columns)
        return (1., *(count / 1e6 for count in counts))


@functools.cache
def _coefficients() -> dict[str, dict[str, list[float]]]:
    return json.loads(COSTS_FILE.read_text(encoding='utf-8'))['milliseconds']


def estimate(shape: Shape) -> dict[str, float]:
    """Milliseconds by backend, of those that were measured for such convolutions."""
    quantities = shape.quantities()
    return {name: sum(c * q for c, q in zip(coefficients, quantities))
            for name, coefficients in _coefficients()[shape.kind].items()}


def cheapest(m: Any, needs_grad: bool) -> list[str]:
    """The names of backends, by what they are expected to cost.

    Args:
        m (Mixture): the call.
        needs_grad (bool): whether gradients are needed.
    """
    if not m.input.is_cpu:
        return list(GPU_ORDER)
    batch, in_channels, *input_size = m.input.shape
    n, out_channels, group_channels, *kernel_size = m.weight.shape
    costs = estimate(Shape(batch, n, in_channels, out_channels, m.groups, tuple(kernel_size), tuple(input_size),
                           m.output_size, needs_grad))
    names = sorted(costs, key=costs.__getitem__)
    if not m.input.is_contiguous():  # of another memory format, which products would have to change
        names.insert(0, 'shared')
    if batch > 1 or needs_grad:
        return names
    # What a call costs beside its arithmetic decides for one image: a single kernel, made by one call. A large one
    # is better left as it is.
    area = kernel_size[0] * kernel_size[1]
    large = n == 1 and m.weight.numel() > LARGE_KERNEL + area * m.input.numel()
    return ['shared' if large else 'numba', *names]

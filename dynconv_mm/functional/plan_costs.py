"""What a plan costs for a mixture, estimated from the sizes of what it computes and moves.

The time is a sum over :data:`QUANTITIES`, each times a coefficient of the plan; ``tools/benchmark.py --calibrate``
measures layers, fits the coefficients and writes them beside this file. So a call's plan depends on nothing but its
shapes, and a run that is repeated takes the same plans.
"""
from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

COSTS_FILE = Path(__file__).with_suffix('.json')
QUANTITIES = ('call', 'products', 'bank', 'kernels', 'input', 'output', 'columns')


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
    """Milliseconds by plan, of the plans that were measured for such convolutions."""
    quantities = shape.quantities()
    return {plan: sum(c * q for c, q in zip(coefficients, quantities))
            for plan, coefficients in _coefficients()[shape.kind].items()}

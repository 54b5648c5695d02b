"""What a backend costs for a mixture of kernels, estimated from the sizes of what it computes and moves.

The time is a sum over :data:`QUANTITIES`, each times a coefficient of the backend; ``tools/analysis_tools/benchmark.py
--calibrate`` measures layers and fits the coefficients. They come from the device's record in the user's cache, or else
from the files ``costs_….json`` beside this one. No clock enters, so a run that is repeated takes the same backends.
"""
from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from . import device_record

QUANTITIES = ('call', 'products', 'bank', 'kernels', 'input', 'output', 'columns', 'samples')
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
        kernels, in one kernel for each sample, in the input, in the output and in the columns of the input; and
        the samples, each of which may take calls of its own."""
        area = self.kernel_size[0] * self.kernel_size[1]
        pixels = self.output_size[0] * self.output_size[1]
        kernel = self.out_channels * self.in_channels // self.groups * area
        columns = 0 if area == 1 else self.batch * self.in_channels * area * pixels
        counts = (self.batch * kernel * pixels, self.kernel_num * kernel, self.batch * kernel,
                  self.batch * self.in_channels * self.input_size[0] * self.input_size[1],
                  self.batch * self.out_channels * pixels, columns)
        return (1., *(count / 1e6 for count in counts), self.batch)


@functools.cache
def _coefficients(kind: str) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Those of the package for 'cpu' or 'gpu', by type of the tensors."""
    content = json.loads(Path(__file__).with_name(f'costs_{kind}.json').read_text(encoding='utf-8'))['milliseconds']
    return content if kind == 'gpu' else {'float32': content}


def estimate(shape: Shape, device: torch.device = torch.device('cpu'),
             dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Milliseconds by backend, of those that were measured for such convolutions and have not failed their check.

    float16 costs what bfloat16 does, and what has not been measured what float32 does.
    """
    record = device_record.read(device)
    name = str(dtype)[6:]
    measured = {} if record is None else record.milliseconds
    measured = measured or _coefficients('cpu' if device.type == 'cpu' else 'gpu')
    by_kind = measured.get('bfloat16' if dtype.itemsize == 2 else 'float32') or measured['float32']
    failed = () if record is None else [backend.rpartition('.')[2] for backend in record.failed.get(name, ())
                                        if backend.startswith('mixture_conv.')]
    quantities = shape.quantities()
    return {backend: sum(c * q for c, q in zip(coefficients, quantities))
            for backend, coefficients in by_kind[shape.kind].items() if backend not in failed}


def cheapest(m: Any, needs_grad: bool) -> list[str]:
    """The names of backends, by what they are expected to cost.

    Args:
        m (Mixture): the call.
        needs_grad (bool): whether gradients are needed.
    """
    batch, in_channels, *input_size = m.input.shape
    n, out_channels, group_channels, *kernel_size = m.weight.shape
    costs = estimate(Shape(batch, n, in_channels, out_channels, m.groups, tuple(kernel_size), tuple(input_size),
                           m.output_size, needs_grad), m.input.device, m.input.dtype)
    names = sorted(costs, key=costs.__getitem__)
    if not m.input.is_cpu:
        # measured on an H200 they are ahead with nearly all layers
        return names if device_record.read(m.input.device) is not None else ['triton', *names]
    if not m.input.is_contiguous():  # of another memory format, which products would have to change
        names.insert(0, 'shared')
    if batch > 1 or needs_grad:
        return names
    # What a call costs beside its arithmetic decides for one image: a single kernel, made by one call. A large one
    # is better left as it is.
    area = kernel_size[0] * kernel_size[1]
    large = n == 1 and m.weight.numel() > LARGE_KERNEL + area * m.input.numel()
    return ['shared' if large else 'numba', *names]

"""What the Triton kernels share: where a window lies, products of tiles, sizes of blocks.

``GEOMETRY`` is (kernel height, kernel width, two strides, two paddings, two dilations), the vertical one first.
"""
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...operator import REMEMBERED


@triton.jit
def share_of_program(channels, pixels, GROUPS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """The block of a group's channels and of pixels, the group and the sample that are this program's.

    Programs that follow each other differ in their channels first: they read the same pixels.
    """
    program = tl.program_id(0)
    c_blocks, p_blocks = tl.cdiv(channels, BLOCK_C), tl.cdiv(pixels, BLOCK_P)
    c = program % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = program // c_blocks % p_blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    program = program // c_blocks // p_blocks
    return c, p, program % GROUPS, (program // GROUPS).to(tl.int64)  # int64: offsets of samples are large


@triton.jit
def window_position(row, column, tap, GEOMETRY: tl.constexpr, height, width):
    """Where tap number ``tap`` of the window at (row, column) lies in a map of that size, and whether inside."""
    row = row * GEOMETRY[2] - GEOMETRY[4] + tap // GEOMETRY[1] * GEOMETRY[6]
    column = column * GEOMETRY[3] - GEOMETRY[5] + tap % GEOMETRY[1] * GEOMETRY[7]
    return row, column, (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def output_position(row, column, tap, GEOMETRY: tl.constexpr, height, width):
    """Which output of a map of that size meets (row, column) of the input by tap number ``tap``, and whether any."""
    row = row + GEOMETRY[4] - tap // GEOMETRY[1] * GEOMETRY[6]
    column = column + GEOMETRY[5] - tap % GEOMETRY[1] * GEOMETRY[7]
    inside = (row >= 0) & (row % GEOMETRY[2] == 0) & (column >= 0) & (column % GEOMETRY[3] == 0)
    row, column = row // GEOMETRY[2], column // GEOMETRY[3]
    return row, column, inside & (row < height) & (column < width)


@triton.jit
def tile_of(x, strides, sample, channel, row, column):
    """The addresses of a sample's channels [c] at places [p]: [c, p]."""
    place = row.to(tl.int64) * strides[2] + column.to(tl.int64) * strides[3]
    return x + sample * strides[0] + channel[:, None] * strides[1] + place[None, :]


@triton.jit
def matmul(a, b, total, WIDENED: tl.constexpr, PRECISION: tl.constexpr):
    """``total + a @ b``, the sum in the type of ``total``."""
    if WIDENED:  # numpy, on which the interpreter stands, knows no bfloat16
        a, b = a.to(total.dtype), b.to(total.dtype)
    return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def scaled(tile, factors, WIDENED: tl.constexpr):
    """``tile * factors``, in the type of ``tile``."""
    return ((tile.to(tl.float32) * factors.to(tl.float32)).to(tile.dtype) if WIDENED
            else tile * factors.to(tile.dtype))


@triton.jit
def normalized(values, mean, var, weight, bias, c, inside, EPS: tl.constexpr, ACC: tl.constexpr):
    """A batch norm of values [rows, c] by running statistics; without ``mean`` there is none."""
    if mean is not None:
        factor = tl.rsqrt(tl.load(var + c, inside, 1.).to(ACC) + EPS)
        if weight is not None:
            factor *= tl.load(weight + c, inside, 0.).to(ACC)
        values = (values - tl.load(mean + c, inside, 0.).to(ACC)[None, :]) * factor[None, :]
        if bias is not None:
            values += tl.load(bias + c, inside, 0.).to(ACC)[None, :]
    return values


PROGRAMS = 1024
"""About as many keep a GPU busy."""
INTERPRETED = not isinstance(matmul, triton.JITFunction)
"""Whether Triton's interpreter runs the kernels: TRITON_INTERPRET=1 was set before Triton was imported."""


def runs_on(*tensors: Tensor | None) -> bool:
    """Whether the kernels take these tensors: on CUDA, or anywhere in the interpreter, and of a float type.

    float64 is for the interpreter alone, in which the kernels are compared with their equations.
    """
    return all(tensor is None or (tensor.dtype in ACCUMULATORS if INTERPRETED else
                                  tensor.is_cuda and tensor.dtype in ACCUMULATORS and tensor.dtype != torch.float64)
               for tensor in tensors)


ACCUMULATORS = {torch.float64: tl.float64, torch.float32: tl.float32, torch.float16: tl.float32,
                torch.bfloat16: tl.float32}
"""The type in which products of a type are added up."""


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """torch's name of ``ACCUMULATORS[dtype]``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def precision(dtype: torch.dtype) -> str:
    """float32 products are as exact as cuDNN's are allowed to be."""
    return 'tf32' if dtype == torch.float32 and torch.backends.cudnn.allow_tf32 else 'ieee'


def widened(dtype: torch.dtype) -> bool:
    """Whether :func:`matmul` has to widen tiles of this type."""
    return INTERPRETED and dtype == torch.bfloat16


def block(length: int, most: int, least: int = 1) -> int:
    """The smallest power of 2 that covers ``length``, between ``least`` and ``most``."""
    return max(least, min(most, triton.next_power_of_2(length)))


class Launch:
    """A kernel with all that it is called with but its tensors.

    Triton finds the compiled kernel by its arguments at each call, which takes longer than many of them run; here it is
    looked up by what may still differ, where the tensors lie.

    Args:
        kernel (JITFunction): takes tensors, then numbers, then constants.
        programs (tuple[int, int, int]): the grid.
        numbers (tuple[int, ...]): sizes.
        constants (dict): what it is compiled for, in the order of its parameters.
        options: ``num_warps`` and ``num_stages``.
    """

    def __init__(self, kernel: triton.JITFunction, programs: tuple[int, int, int], numbers: tuple[int, ...],
                 constants: dict, **options: int) -> None:
        self.kernel, self.programs, self.numbers, self.options = kernel, programs, numbers, options
        self.constants, self._rest = constants, (*numbers, *constants.values())
        self._compiled: dict = {}

    def __call__(self, *tensors: Tensor | None) -> None:
        """The tensors' types and the device are those of the first call."""
        if INTERPRETED:
            self.kernel[self.programs](*tensors, *self.numbers, **self.constants)
            return
        # all but always 0: torch allocates in units of 512 bytes
        key = tuple([tensor.data_ptr() % 16 for tensor in tensors if tensor is not None])
        run = self._compiled.get(key)
        if run is None:
            compiled = self.kernel[self.programs](*tensors, *self.numbers, **self.constants, **self.options)
            self._compiled[key] = None if compiled is None else compiled[self.programs]
        else:
            run(*tensors, *self._rest)


class Remembered(dict):
    """Launches by all that the calls that they serve have in common; :data:`REMEMBERED` at most."""

    def __setitem__(self, key: tuple, value: object) -> None:
        if len(self) >= REMEMBERED:
            self.clear()
        super().__setitem__(key, value)

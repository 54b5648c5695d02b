"""Compile the kernels of layers of real networks for one GPU architecture.

Needs no GPU: the launches end after compilation. Prints a line of JSON for each kernel.
Usage: python compile_kernels.py CAPABILITY LAYER:DTYPE..., for example 90 dense:bfloat16; TRITON_INTERPRET must not
be 1.
"""
from __future__ import annotations

import json
import sys

import torch
from triton import JITFunction
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from dynconv_mm.functional.backends.triton import attention, involution, mixture_conv
from dynconv_mm.functional.involution import Involution
from dynconv_mm.functional.mixture_conv import Mixture

# n, groups, channels and outputs a group, kernel size, whether each kernel has attentions of its own
MIXTURES = {'dense': (4, 1, 64, 128, 3, False), 'dense_own': (8, 2, 96, 40, 1, True),
            'one_kernel': (1, 1, 512, 448, 1, False), 'depthwise': (4, 24, 1, 1, 3, False)}


class NoGPU:
    """As much of a driver as compilation asks for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget('cuda', capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def report(**case: object) -> None:
    """Compile each kernel instead of launching it."""

    def compile_only(self, *args, grid, warmup, **kwargs) -> None:
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        print(json.dumps(dict(name=f'{self.module.rpartition(".")[2]}.{self.fn.__name__}', **case,
                              shared=kernel.metadata.shared, code=len(kernel.asm['cubin']),
                              tensor_cores='mma' in kernel.asm['ptx'])))

    JITFunction.run = compile_only


def compile_layer(layer: str, dtype: torch.dtype) -> None:
    """Its forward and backward pass."""

    def zeros(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype)

    if layer == 'involution':
        x, weight, y = zeros(2, 32, 14, 14), zeros(2, 2, 7, 7, 7, 7), zeros(2, 32, 7, 7)
        call = Involution(x, weight, (2, 2), (3, 3), (1, 1))
        involution.forward(call)
        involution.backward(call, y, (True, True))
        return
    if layer == 'attention':
        hidden, weight, bias = zeros(2, 16), zeros(64, 16, 1, 1), zeros(64)
        launches = attention._make_launches(zeros(2, 32, 14, 14), False, dtype, 16, [64], [False], 1e-5)
        launches.pool(zeros(2, 32, 14, 14), zeros(2 * launches.parts, 32))
        launches.squeeze(zeros(2 * launches.parts, 32), zeros(16, 32), None, hidden)
        heads = attention.Heads(hidden, zeros(), weight, bias, weight, bias, None, None, None, None, (False, True))
        backend = attention.HEADS.backends['triton']
        backend.backward(heads, backend.forward(heads), (True, False, *[True] * 4, *[False] * 4))
        return
    n, groups, channels, outputs, k, own = MIXTURES[layer]
    each = (2, n) if own else (2, )
    m = Mixture(
        zeros(2, groups * channels, 14, 14), zeros(n, groups * outputs, channels, k, k), zeros(groups * outputs),
        zeros(2, n) if n > 1 else None,
        zeros(*each, k * k), zeros(*each, groups * channels), zeros(*each, groups * outputs),
        (1, 1), (k // 2, k // 2), (1, 1), groups, not own)
    mixture_conv.backward(m, mixture_conv.forward(m), tuple(tensor is not None for tensor in m[:7]))


launch = JITFunction.run
driver.set_active(NoGPU(int(sys.argv[1])))
for case in sys.argv[2:]:
    layer, dtype = case.split(':')
    report(layer=layer, dtype=dtype)
    compile_layer(layer, getattr(torch, dtype))

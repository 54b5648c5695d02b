"""Which calls the Numba kernels serve, and tensors as they take them: without importing Numba."""
from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from ..tracing import is_traced
from . import NUMBA_DTYPES, numba_enabled, numba_kernels

_TENSORS = (Tensor, nn.Parameter)  # no subclass, which may have no memory


def kernels_for(x: Tensor, module: str) -> ModuleType | None:
    """That module of the package, if kernels without gradients serve a call with this tensor."""
    if torch.is_grad_enabled() or not numba_enabled() or not x.is_cpu or x.dtype not in NUMBA_DTYPES or is_traced() \
            or torch._C._len_torch_dispatch_stack():
        return None
    return numba_kernels(module)


def addresses(dtype: torch.dtype, *tensors: tuple[Tensor | None, int]) -> list[int] | None:
    """Where tensors lie, 0 for None; None unless they are of ``dtype`` and lie on the CPU, as many numbers as said in a
    row."""
    result = []
    for tensor, numbers in tensors:
        if tensor is None:
            result.append(0)
        elif tensor.dtype is dtype and type(tensor) in _TENSORS and tensor.is_cpu and tensor.is_contiguous() \
                and tensor.numel() == numbers:
            result.append(tensor.data_ptr())
        else:
            return None
    return result


def sample_rows(attention: Tensor | None, dtype: torch.dtype) -> tuple[int, int] | None:
    """Where an attention lies, and the stride between its samples; None unless each lies there without gaps."""
    if attention is None:
        return 0, 0
    if type(attention) in _TENSORS and attention.dtype is dtype and attention.is_cpu and attention.stride(1) == 1:
        return attention.data_ptr(), attention.stride(0)
    return None

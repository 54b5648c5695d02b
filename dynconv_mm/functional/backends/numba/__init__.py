"""The switch of the Numba kernels, and tensors as these take them: addresses.

The kernels serve CPU tensors, in inference; some of them in training too. The modules in ``compiled`` import Numba,
which takes half a second: :func:`load` does so when one is first needed.
"""
from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ...kernel_switches import Switch, is_enabled

# The types that the kernels serve, each with a number that says so to a kernel.
ZEROS = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
# The kernels run in one thread. Where torch has more, larger products are left to it.
SERIAL_PRODUCTS = 2**18


class enable_numba(Switch):
    """Use the Numba kernels from now on, or within a ``with`` block in its thread.

    They are used from the start where Numba is installed; ``DYNCONV_MM_NUMBA=0`` in the environment switches them off.

    Args:
        enabled (bool): False switches them off. Default: True.

    Raises:
        ImportError: Numba is not installed, or does not fit the NumPy that is.

    Example:
        >>> with enable_numba(False):
        ...     layer(features)
    """

    name = 'numba'
    variable = 'DYNCONV_MM_NUMBA'

    @classmethod
    def check(cls) -> None:
        """Raise an ImportError unless Numba is there, and fits NumPy."""
        try:
            importlib.import_module('numba')
        except ImportError as error:
            raise ImportError(f'the Numba kernels of dynconv_mm were asked for (enable_numba or {cls.variable}=1), and '
                              f'Numba cannot be imported: {error}. `pip install --upgrade numba`, or go without '
                              f'({cls.variable}=0)') from error


@functools.cache
def load(name: str) -> ModuleType | None:
    """A module of compiled kernels; None, with a warning, where Numba is installed and does not work."""
    try:
        return importlib.import_module(f'.compiled.{name}', __name__)
    except ImportError as error:
        warnings.warn(f'dynconv_mm goes without its Numba kernels, and is slower on CPUs: {error}. '
                      f'`pip install --upgrade numba` mends it, DYNCONV_MM_NUMBA=0 silences this.', stacklevel=2)
        return None


def refuses(x: Tensor, name: str, dtype: torch.dtype | None = None) -> str | None:
    """Why a module of compiled kernels does not serve calls with these features, computed in ``dtype`` or their own, or
    None."""
    if not is_enabled('numba') or not x.is_cpu or (dtype or x.dtype) not in ZEROS or load(name) is None:
        return 'calls without Numba, on other devices than the CPU, or of other types than float32 and float64'
    return None


def addresses(dtype: torch.dtype, *tensors: tuple[Tensor | None, int]) -> list[int] | None:
    """Where tensors lie, 0 for None; None unless they are of ``dtype`` and lie on the CPU, as many numbers as said in a
    row.

    Only for tensors of a call in plain eager mode, see :func:`~dynconv_mm.functional.operator.is_plain_eager`.
    """
    result = []
    for tensor, numbers in tensors:
        if tensor is None:
            result.append(0)
        elif tensor.dtype is not dtype or not tensor.is_cpu or tensor.numel() != numbers or not tensor.is_contiguous():
            return None
        else:
            result.append(tensor.data_ptr())
            if not result[-1] and numbers:  # a tensor whose memory was freed, or that never had any
                return None
    return result


enable_numba.set_from_environment(enabled=importlib.util.find_spec('numba') is not None)

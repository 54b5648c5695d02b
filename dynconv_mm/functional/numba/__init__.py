"""The switch of the Numba kernels: on where Numba is installed, and importable where it is not.

The kernels serve CPU tensors. Their modules import Numba, which takes half a second: :func:`numba_kernels` does so when
one is first needed.
"""
from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from types import ModuleType

import numpy as np
import torch

from ..switch import Switch

# The types that the kernels serve, each with a number that says so to a kernel.
ZEROS = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
NUMBA_DTYPES = tuple(ZEROS)  # torch 2.1 cannot compile a look into a dict


class enable_numba(Switch):
    """Use the Numba kernels from now on, or within a ``with`` block.

    They are used from the start where Numba is installed; ``DYNCONV_MM_NUMBA=0`` in the environment switches them off.

    Args:
        enabled (bool): False switches them off. Default: True.

    Raises:
        ImportError: Numba is not installed, or does not fit the NumPy that is.

    Example:
        >>> with enable_numba(False):
        ...     assert not numba_enabled()
    """

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


def numba_enabled() -> bool:
    """Whether the Numba kernels may be used."""
    return enable_numba.enabled


@functools.cache
def numba_kernels(name: str) -> ModuleType | None:
    """A module of this package; None, with a warning, where Numba is installed and does not work."""
    try:
        return importlib.import_module(f'.{name}', __name__)
    except ImportError as error:
        warnings.warn(f'dynconv_mm goes without its Numba kernels, and is slower on CPUs: {error}. '
                      f'`pip install --upgrade numba` mends it, DYNCONV_MM_NUMBA=0 silences this.', stacklevel=2)
        return None


enable_numba.set_from_environment(default=importlib.util.find_spec('numba') is not None)

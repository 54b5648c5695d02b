"""The switch of the Numba kernels: on where Numba is installed, and importable where it is not.

The kernels serve CPU tensors without gradients. Their modules, ``kernels`` and ``pointers``, import Numba, which takes
half a second: ``dynconv_mm.functional.fused`` does so when it first needs one.
"""
from __future__ import annotations

import importlib
import importlib.util

from ..switch import Switch


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


enable_numba.set_from_environment(default=importlib.util.find_spec('numba') is not None)

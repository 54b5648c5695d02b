"""The switch of the Triton kernels: off unless asked for, and importable where Triton is not installed.

The kernels serve CUDA tensors. They are checked in Triton's interpreter and compiled for sm_80 and sm_90, but
not yet run on a GPU, hence the switch. Their modules, ``mixture_conv`` and ``involution``, import Triton;
import them only after :func:`triton_enabled` has said yes.
"""
from __future__ import annotations

import importlib
import os

MINIMUM = (3, 7)  # the oldest tried that takes float64 matrix products; 3.3 does not

_enabled = False


class enable_triton:
    """Use the Triton kernels from now on, or within a ``with`` block.

    ``DYNCONV_MM_TRITON=1`` in the environment does the same from the start.

    Args:
        enabled (bool): False switches them off. Default: True.

    Raises:
        ImportError: Triton is not installed, or too old.

    Example:
        >>> with enable_triton(False):
        ...     assert not triton_enabled()
    """

    def __init__(self, enabled: bool = True) -> None:
        global _enabled
        if enabled:
            _check_triton()
        self._before, _enabled = _enabled, enabled

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        global _enabled
        _enabled = self._before


def triton_enabled() -> bool:
    """Whether the Triton kernels may be used."""
    return _enabled


def _check_triton() -> None:
    remedy = f'`pip install "triton>={MINIMUM[0]}.{MINIMUM[1]}"`; the CUDA builds of torch bring the one that fits them'
    try:
        triton = importlib.import_module('triton')
    except ModuleNotFoundError as error:
        raise ImportError(f'the Triton kernels of dynconv_mm were asked for (enable_triton or DYNCONV_MM_TRITON=1), '
                          f'and {error.name!r} is not installed: {remedy}') from error
    if tuple(int(part) for part in triton.__version__.split('.')[:2]) < MINIMUM:
        raise ImportError(f'the Triton kernels of dynconv_mm were asked for (enable_triton or DYNCONV_MM_TRITON=1), '
                          f'and Triton {triton.__version__} is too old for them: {remedy}')


def _from_environment() -> None:
    value = os.environ.get('DYNCONV_MM_TRITON', '0')
    if value not in ('', '0', '1'):
        raise ValueError(f'the environment variable DYNCONV_MM_TRITON must be 0 or 1, but is {value!r}')
    if value == '1':
        enable_triton()


_from_environment()

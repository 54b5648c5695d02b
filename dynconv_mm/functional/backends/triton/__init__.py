"""The switch of the Triton kernels: on where they passed their check, and importable where Triton is not installed.

The kernels serve CUDA tensors. They are checked in Triton's interpreter, compiled for sm_80 and sm_90, and were run on
an H200. Their modules, ``attention``, ``mixture_conv`` and ``involution``, import Triton, when they are first needed.
"""
from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType

from torch import Tensor

from ...attention import BACKENDS, GPU_BACKENDS, Attention
from ...device_record import device_name, has_passed, read
from ...involution import INVOLUTION
from ...kernel_switches import Switch, is_enabled
from ...mixture_conv import MIXTURE_CONV
from ...operator import Backend

MINIMUM = (3, 6)  # the oldest that the kernels were run with


CHECKED = 'triton where checked'


class enable_triton(Switch):
    """Use the Triton kernels from now on, or within a ``with`` block in its thread.

    They are used from the start on devices, and with types, for which ``tools/analysis_tools/benchmark.py --calibrate``
    has found that they compute what they should. ``DYNCONV_MM_TRITON=1`` in the environment uses them unchecked, 0
    never.

    Args:
        enabled (bool): False switches them off. Default: True.

    Raises:
        ImportError: Triton is not installed, or too old.

    Example:
        >>> with enable_triton(False):
        ...     layer(features)
    """

    name = 'triton'
    variable = 'DYNCONV_MM_TRITON'
    otherwise = frozenset({CHECKED})

    @classmethod
    def check(cls) -> None:
        """Raise an ImportError unless Triton is there, and new enough."""
        asked = f'the Triton kernels of dynconv_mm were asked for (enable_triton or {cls.variable}=1), and '
        remedy = (f'`pip install "triton>={MINIMUM[0]}.{MINIMUM[1]}"`; the CUDA builds of torch bring the one that '
                  'fits them')
        try:
            triton = importlib.import_module('triton')
        except ModuleNotFoundError as error:
            raise ImportError(f'{asked}{error.name!r} is not installed: {remedy}') from error
        if tuple(int(part) for part in triton.__version__.split('.')[:2]) < MINIMUM:
            raise ImportError(f'{asked}Triton {triton.__version__} is too old for them: {remedy}')


@functools.cache
def _kernels(name: str) -> ModuleType:
    return importlib.import_module(f'.{name}', __name__)


def _attention(call: Attention) -> dict[str, Tensor] | None:
    return _kernels('attention').attention(call) if _kernels('common').runs_on(call.input) else None


def _checked_attention(call: Attention) -> dict[str, Tensor] | None:
    passed = has_passed(call.input.device, call.temperature.dtype, 'attention.triton')
    return _attention(call) if passed else None


def _refuses(operator: str, *tensors: Tensor | None) -> str | None:
    """Why the kernels do not serve these tensors, or None."""
    x = tensors[0]
    always, where_checked = is_enabled('triton'), is_enabled(CHECKED)
    if not always and not (where_checked and has_passed(x.device, x.dtype, f'{operator}.triton')):
        if x.is_cuda and where_checked and read(x.device) is None:
            _warn_once(device_name(x.device))
        return ('a call before enable_triton() on a device and with a type for which `tools/analysis_tools/'
                'benchmark.py --calibrate` has not found that the Triton kernels compute what they should')
    if not _kernels('common').runs_on(*tensors):
        return 'tensors that are not on a GPU, or of another type than float16 to float64'
    return None


@functools.cache
def _warn_once(name: str) -> None:
    """Say what is missed on a device of that name where nothing was checked, if there is something to miss."""
    try:
        enable_triton.check()
    except ImportError:
        return
    warnings.warn(f'dynamic convolutions run without their Triton kernels on {name}, where nobody has checked these, '
                  'and take several times as long: run `python tools/analysis_tools/benchmark.py --device cuda '
                  f'--calibrate` there once, or use them unchecked by {enable_triton.variable}=1 (0: never, and not a '
                  'word of it).', stacklevel=2)


MIXTURE_CONV.backends['triton'] = Backend(
    lambda m: _kernels('mixture_conv').forward(m), lambda m: _refuses('mixture_conv', *m[:7]),
    lambda m, grad, needed: _kernels('mixture_conv').backward(m, grad, needed), takes_norm=True, mixes_types=True)
INVOLUTION.backends['triton'] = Backend(
    lambda call: _kernels('involution').forward(call), lambda call: _refuses('involution', *call[:2]),
    lambda call, grad, needed: _kernels('involution').backward(call, grad, needed))
BACKENDS['triton'] = _attention  # in the interpreter
GPU_BACKENDS.update({'triton': _attention, CHECKED: _checked_attention})
enable_triton.set_from_environment(enabled=False)

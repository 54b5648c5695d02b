"""What was checked and measured on the device at hand: a file in the user's cache.

``python tools/analysis_tools/benchmark.py --calibrate`` writes it, for this device, these versions of torch
and Triton and these operators as they are.
"""
from __future__ import annotations

import functools
import json
import os
import platform
import re
import warnings
import zlib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch


class Record(NamedTuple):
    """By type of the tensors, such as 'float32'."""

    passed: dict[str, list[str]]
    """Backends that gave the values and gradients of the equation, each named as in 'mixture_conv.triton'."""
    failed: dict[str, dict[str, str]]
    """The others, and what they did."""
    milliseconds: dict[str, dict[str, dict[str, list[float]]]]
    """By kind of convolution, then by plan, coefficients as in ``cost_model.py``."""


def folder() -> Path:
    """Where records lie: in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    base = Path(os.environ.get('XDG_CACHE_HOME', ''))
    return (base if base.is_absolute() else Path.home() / '.cache') / 'dynconv_mm'


def device_name(device: torch.device) -> str:
    """Of a GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else processor()


def processor() -> str:
    """The processor's name."""
    info = Path('/proc/cpuinfo')
    match = re.search(r'model name\s*: (.*)', info.read_text()) if info.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def path(device: torch.device) -> Path:
    """Of the record of a device with what is installed, these very operators among it."""
    try:
        triton = metadata.version('triton')
    except metadata.PackageNotFoundError:
        triton = 'none'
    sources = b''.join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob('*.py')))
    name = f'{device_name(device)} torch {torch.__version__} triton {triton} {zlib.crc32(sources):08x}'
    return folder() / f'{re.sub(r"[^A-Za-z0-9.]+", "-", name)}.json'


@functools.cache
def read(device: torch.device) -> Record | None:
    """The record of a device, or None. A file that is none is left out of account, with a warning."""
    file = path(device)
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        return Record(*[content[name] for name in Record._fields])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f'{file} is no valid record of this device and is ignored: {error!r}. Delete it, or write it '
                      'anew by `python tools/analysis_tools/benchmark.py --calibrate`.', stacklevel=2)
        return None


def has_passed(device: torch.device, dtype: torch.dtype, backend: str) -> bool:
    """Whether a backend was checked on a device with tensors of a type, and gave what it should."""
    record = read(device)
    return record is not None and backend in record.passed.get(str(dtype)[6:], ())

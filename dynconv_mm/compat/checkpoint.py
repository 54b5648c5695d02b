"""Loading mmengine's checkpoints with ``torch.load(weights_only=True)``.

From torch 2.6 on that is the default, and mmengine's own checkpoints fail it: their message hub holds
``HistoryBuffer`` objects, numpy arrays and scalars, and methods looked up by ``builtins.getattr``. While
mmengine loads a checkpoint these, and no other callables, are allowed here; a file that asks for anything
else is refused before it runs. numpy's own constructors are not: with them a file could pass off bytes as
pointers to objects.
"""
from __future__ import annotations

import _compat_pickle
import functools
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, checkpoint
from mmengine.utils import digit_version
from torch import Tensor

from .optional import import_optional

try:
    from numpy._core import multiarray
except ImportError:  # numpy < 2
    from numpy.core import multiarray

# from here on, torch can be told what `weights_only` is to allow beside weights
CAN_BE_TOLD = digit_version(torch.__version__.partition('+')[0]) >= digit_version('2.6')
SAFETENSORS = '.safetensors'
STATISTICS = ('min', 'max', 'current', 'mean')
NUMERIC = '?bhilqBHILQefdFD'  # numpy's codes of bool, int, uint, float and complex types


def _history_buffer_method(owner: object, name: str) -> object:
    """In place of ``getattr``: the statistics of ``HistoryBuffer``, which its pickles refer to."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'refused: the checkpoint asks for the attribute {name!r} of {owner!r}, and only the '
                              f'statistics {STATISTICS} of HistoryBuffer may be looked up')
    return getattr(HistoryBuffer, name)


class _PlainArray(np.ndarray):
    """In place of ``numpy.ndarray``, which pickles need only name; they may not call it.

    It is a type because numpy's own ``_reconstruct``, which a user may allow, wants one.
    """

    def __new__(cls, *args, **kwargs) -> np.ndarray:
        raise UnpicklingError('refused: the checkpoint calls numpy.ndarray')

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()


def _empty_array(kind: type, shape: tuple, dtype: bytes) -> np.ndarray:
    """In place of numpy's ``_reconstruct``: plain arrays only."""
    if kind is not _PlainArray and kind is not np.ndarray:
        raise UnpicklingError(f'refused: the checkpoint asks for an array of type {kind!r}')
    return multiarray._reconstruct(np.ndarray, shape, dtype)


def _numeric_dtype(code: str, *align_and_copy: bool) -> np.dtype:
    """In place of ``numpy.dtype``: numbers only, and numpy's own instances, whose state a file cannot set."""
    dtype = np.dtype(code) if isinstance(code, str) else None
    if dtype is None or dtype.char not in NUMERIC or not dtype.isbuiltin:
        raise UnpicklingError(f'refused: the checkpoint asks for numpy data of type {code!r}')
    return dtype


def _numeric_scalar(dtype: np.dtype, value: bytes) -> np.generic:
    """In place of numpy's ``scalar``: numbers only."""
    if not isinstance(dtype, np.dtype) or dtype.char not in NUMERIC or not isinstance(value, bytes):
        raise UnpicklingError(f'refused: the checkpoint asks for a numpy scalar of type {dtype!r}')
    return multiarray.scalar(dtype, value)


class _Arguments:
    """In place of ``argparse.Namespace``, in which released trainings keep their options: attributes, of plain data."""


ALLOWED = {  # by the names under which a file asks for them
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'builtins.getattr': _history_buffer_method,
    'argparse.Namespace': _Arguments,
    'builtins.bytes': bytes,  # the data of an empty array
    'numpy.ndarray': _PlainArray,
    'numpy.dtype': _numeric_dtype,
    # Objects of these types may be given a state; without a dot in their names, no file can call the types.
    'ndarray': np.ndarray,
    **{code: type(np.dtype(code)) for code in NUMERIC},
    **{f'numpy.{core}.multiarray.{name}': replacement for core in ('core', '_core')
       for name, replacement in (('_reconstruct', _empty_array), ('scalar', _numeric_scalar))},
}
_loading = threading.RLock()  # torch keeps what is allowed for all threads


def _full_name(entry: object) -> str:
    """The name for which an entry of torch's list stands."""
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


@contextmanager
def mmengine_checkpoints(beside: Iterable[object] = ()) -> Iterator[None]:
    """Within it, ``torch.load(weights_only=True)`` reads what mmengine's runner saves.

    What a user has allowed by ``torch.serialization.add_safe_globals`` stays what it is, here too. Does nothing before
    torch 2.6, where mmengine loads without ``weights_only``.

    Args:
        beside (Iterable): what is allowed within it by others.
    """
    if not CAN_BE_TOLD:
        yield
        return
    with _loading:
        others = torch.serialization.get_safe_globals()
        taken = {_full_name(entry) for entry in (*others, *beside)}
        try:
            with torch.serialization.safe_globals([(item, name) for name, item in ALLOWED.items()
                                                   if name not in taken]):
                yield
        finally:  # the onedl fork of mmengine takes back what it allows for a load, a user's own included
            torch.serialization.add_safe_globals(others)


def load_plain(path: str | Path) -> object:
    """What a checkpoint file holds, on the CPU: weights, plain data and what mmengine's runner saves, and no code.

    Raises:
        UnpicklingError: it asks for anything else.
        ImportError: it is one of safetensors, which is not installed.
    """
    if Path(path).suffix == SAFETENSORS:
        return load_safetensors(path)
    if not CAN_BE_TOLD:
        return torch.load(path, map_location='cpu', pickle_module=_PlainPickle)
    with mmengine_checkpoints():
        return torch.load(path, map_location='cpu', weights_only=True)


def load_safetensors(path: str | Path, map_location: str | torch.device | None = None) -> dict[str, Tensor]:
    """The weights of a file of safetensors, on the CPU unless ``map_location`` is another device.

    Raises:
        ImportError: safetensors is not installed.
    """
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
    return import_optional('safetensors.torch', 'Reading a file of safetensors').load_file(path, device)


def _reads_safetensors(loader: Callable) -> Callable:
    """A loader of mmengine for local files that reads safetensors too."""

    @functools.wraps(loader)
    def load(filename: str, map_location: str | None = None) -> dict:
        if Path(filename).suffix == SAFETENSORS and Path(filename).is_file():
            return load_safetensors(filename, map_location)
        return loader(filename, map_location)

    return load


class _PlainUnpickler(pickle._Unpickler):
    """What torch has for ``weights_only``, where it cannot be told what is allowed: a file calls nothing else, and sets
    the state of nothing else."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        # torch writes the names of Python 2
        module, name = _compat_pickle.NAME_MAPPING.get((module, name),
                                                       (_compat_pickle.IMPORT_MAPPING.get(module, module), name))
        allowed = _allowed()
        if f'{module}.{name}' not in allowed:
            raise UnpicklingError(f'refused: the checkpoint asks for {module}.{name}')
        return allowed[f'{module}.{name}']

    def load_reduce(self) -> None:
        function = self.stack[-2]
        if not any(function is allowed for allowed in _allowed().values()):
            raise UnpicklingError(f'refused: the checkpoint calls {function!r}')
        super().load_reduce()

    def load_build(self) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        # the versions of a state dict's modules, and the options of a training
        if type(instance) in (OrderedDict, _Arguments) and isinstance(state, dict):
            vars(instance).update(state)
        elif type(instance) in (HistoryBuffer, *[kind for name, kind in ALLOWED.items() if '.' not in name]):
            instance.__setstate__(state)
        else:
            raise UnpicklingError(f'refused: the checkpoint sets the state of a {type(instance).__name__}')

    dispatch.update({pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build})


@functools.cache
def _allowed() -> dict[str, object]:
    """All that a file may name."""
    return {**torch._weights_only_unpickler._get_allowed_globals(), **ALLOWED, '_codecs.encode': _latin1}


def _latin1(text: str, encoding: str) -> bytes:
    """In place of ``_codecs.encode``, by which Python 3 writes bytes so that Python 2 can read them."""
    if encoding != 'latin1':
        raise UnpicklingError(f'refused: the checkpoint asks for the encoding {encoding!r}')
    return text.encode(encoding)


class _PlainPickle:
    """As ``torch.load`` takes a ``pickle_module``."""

    Unpickler = _PlainUnpickler

    @staticmethod
    def load(file: object, **kwargs) -> object:
        return _PlainUnpickler(file, **kwargs).load()


def wrap_mmengine_loaders() -> None:
    """Let mmengine load its own checkpoints, wherever they are stored, and local files of safetensors; done by
    ``import dynconv_mm``.

    The loaders that others have registered stay as they are, and so does ``torch.load`` elsewhere.
    """
    beside = getattr(checkpoint, 'get_torch_safe_globals', tuple)()  # of the onedl fork, for its loaders
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if loader.__module__ == checkpoint.__name__:
            loader = mmengine_checkpoints(beside)(loader)
            CheckpointLoader.register_scheme(prefix, loader if prefix else _reads_safetensors(loader), force=True)

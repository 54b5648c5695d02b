"""Reading weights from checkpoint files safely, and writing them."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

from ..atomic_write import atomic_write
from ..compat.checkpoint import SAFETENSORS, load_plain
from ..compat.optional import import_optional

WRAPPERS = ('state_dict', 'model', 'model_state_dict')  # mmengine and most others; torchvision's references, detectron


class CheckpointError(ValueError):
    """A file that holds no weights, or not those that were asked for."""


def read_checkpoint(path: str | Path) -> dict:
    """What a checkpoint file holds, on the CPU; loading it runs no code that it brings along.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, or holds anything but tensors and plain data, such as code.
        ImportError: it is a file of safetensors, and that is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {str(path)!r}')
    _check_inflation(path)
    try:
        checkpoint = load_plain(path)
    except ImportError:  # safetensors is not installed
        raise
    except UnpicklingError as error:
        raise CheckpointError(f'{path} was refused: it holds more than weights and plain data, and loading that could '
                              f'run code, or it is no checkpoint ({_first_line(error)})') from error
    except Exception as error:  # there is hardly one that a few wrong bytes cannot raise
        raise CheckpointError(f'{path} is truncated or no checkpoint ({_first_line(error)}); get it again') from error
    _check_storages(path, checkpoint)
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{path} holds a {type(checkpoint).__name__}, where a dict of weights is expected')
    return dict(checkpoint)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint file by name, out of their wrappers and without the prefix ``module.``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, holds code, or no weights.
    """
    return unwrap(read_checkpoint(path), str(path))


def unwrap(checkpoint: Mapping, origin: str = 'the checkpoint') -> dict[str, Tensor]:
    """The weights of a checkpoint by name, out of their wrappers and without the prefix ``module.``.

    Args:
        checkpoint (Mapping): what :func:`read_checkpoint` gives.
        origin (str): where it is from, for the message.

    Raises:
        CheckpointError: it holds no weights.
    """
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = dict(checkpoint[wrapper])
            break
    others = [name for name, value in checkpoint.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if not checkpoint or others:
        raise CheckpointError(f'{origin} holds no weights by name: it has no dict of tensors by itself or under '
                              f'{", ".join(WRAPPERS)}, but {_shown(others) or "nothing"}')
    prefix = 'module.'  # of DistributedDataParallel
    if all(name.startswith(prefix) for name in checkpoint):
        checkpoint = {name[len(prefix):]: value for name, value in checkpoint.items()}
    return checkpoint


def write_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Save a checkpoint atomically; to a name in .safetensors the weights alone.

    Raises:
        CheckpointError: it holds no weights, where a file of safetensors is asked for.
        ImportError: that is not installed.
    """
    bare = Path(path).suffix == SAFETENSORS
    if bare:
        save = import_optional('safetensors.torch', 'Writing a file of safetensors').save_file
        weights = {name: value.detach().clone().contiguous() for name, value in unwrap(checkpoint).items()}
    with atomic_write(path) as partial:
        if bare:
            save(weights, partial, dict(format='pt'))
        else:
            torch.save(checkpoint, partial)


def check_fit(state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that are not exactly those expected.

    Args:
        state_dict (Mapping[str, Tensor]): the weights.
        expected (Mapping[str, Tensor]): tensors of the names and shapes to find, such as a model's state dict.
        what (str): what the weights are to fit, for the message.

    Raises:
        CheckpointError: with the names that are missing, unexpected or of another shape.
    """
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    misshapen = [f'{name}: {list(state_dict[name].shape)} instead of {list(value.shape)}'
                 for name, value in expected.items() if name in state_dict and state_dict[name].shape != value.shape]
    faults = {'missing': missing, 'unexpected': unexpected, 'of another shape': misshapen}
    if any(faults.values()):
        listed = '\n'.join(f'  {kind} ({len(names)}): {_shown(names)}' for kind, names in faults.items() if names)
        raise CheckpointError(f'the weights do not fit {what}:\n{listed}')


def _check_inflation(path: Path) -> None:
    """Refuse a zip file that inflates, before it takes memory; torch compresses nothing."""
    try:
        if not is_zipfile(path):
            return
        with ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except Exception as error:  # as in read_checkpoint
        raise CheckpointError(f'{path} is truncated or no checkpoint ({_first_line(error)}); get it again') from error
    if size > path.stat().st_size:
        raise CheckpointError(f'{path} was refused: it declares {size} bytes, more than it is long, and torch does not '
                              'compress checkpoints')


def _check_storages(path: Path, checkpoint: object) -> None:
    """Refuse tensors whose data the file cannot hold: torch itself would read beyond the end of what it does hold."""
    storages, seen, waiting = {}, set(), [checkpoint]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.is_meta:
                raise CheckpointError(f'{path} holds a tensor without data, on the meta device; save the weights '
                                      'themselves')
            if value.layout == torch.strided:
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value
    if sum(storages.values()) > path.stat().st_size:
        raise CheckpointError(f'{path} was refused: its tensors have {sum(storages.values())} bytes, more than the '
                              'file is long')


def _shown(names: list, at_most: int = 10) -> str:
    rest = len(names) - at_most
    return ', '.join(map(str, names[:at_most])) + (f', … {rest} more' if rest > 0 else '')


def _first_line(error: Exception) -> str:
    return ': '.join([type(error).__name__, *str(error).splitlines()[:1]])

"""Checkpoint files of ill will, which run code or lie about what they hold."""
from __future__ import annotations

import functools
import importlib
import io
import os
import pickle
import random
import runpy
import shutil
import subprocess
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from dynconv_mm.compat.checkpoint import multiarray

# Files that run code. Each touches a file when pickle itself reads it, so that the payload is known to work.


class Call:
    """Pickled as the call of a function, and as whatever that returns; calls nest."""

    def __init__(self, function: object, *args: object, state: object = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __call__(self) -> None:
        """Let pickle take it for a function."""

    def __reduce__(self) -> tuple:
        return self.parts


class Trap:
    """Touches a file when it is made (NEWOBJ), or when it is given its state (BUILD)."""

    def __new__(cls, file: str | None = None) -> Trap:
        if file:
            Path(file).touch()
        return super().__new__(cls)

    @classmethod
    def set(cls, **files: str) -> Trap:
        trap = cls()
        vars(trap).update(files)
        return trap

    def __getnewargs__(self) -> tuple:
        return (self.new, ) if hasattr(self, 'new') else ()

    def __getstate__(self) -> str | None:
        return getattr(self, 'build', None)

    def __setstate__(self, file: str) -> None:
        Path(file).touch()


class TrapArray(np.ndarray):

    def __setstate__(self, state: tuple) -> None:
        Path(state[0]).touch()


def shell(file: str) -> str:
    return f'touch {file}'


def python(file: str) -> str:
    return f"open({file!r}, 'w').close()"


def opcodes(module: str, name: str, argument: str) -> bytes:
    """A pickle, written by hand, that calls ``module.name(argument)``."""
    text = argument.encode()
    return b'\x80\x02c' + f'{module}\n{name}\n'.encode() + b'X' + len(text).to_bytes(4, 'little') + text + b'\x85R.'


def attribute(owner: object, name: str) -> Call:
    return Call(getattr, owner, name)


def eval_by_way_of(function: str, file: str) -> Call:
    """eval, found step by step from a function of the one class that may be asked for attributes."""
    names = attribute(attribute(HistoryBuffer, function), '__globals__')
    all_builtins = Call(attribute(names, 'get'), '__builtins__')
    return Call(Call(attribute(all_builtins, 'get'), 'eval'), python(file))


def written(file: str, text: str) -> str:
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(text)
    return file


PAYLOADS = {
    'os.system': lambda file: opcodes('os', 'system', shell(file)),
    'posix.system': lambda file: opcodes(os.name, 'system', shell(file)),
    'Python 2 eval': lambda file: opcodes('__builtin__', 'eval', python(file)),
    'eval': lambda file: Call(eval, python(file)),
    'exec': lambda file: Call(exec, python(file)),
    'getattr of a module': lambda file: Call(attribute(Call(importlib.import_module, 'os'), 'system'), shell(file)),
    'globals of a statistic': lambda file: eval_by_way_of('mean', file),
    'globals of __init__': lambda file: eval_by_way_of('__init__', file),
    'partial': lambda file: Call(Call(functools.partial, eval, python(file))),
    'subprocess.Popen': lambda file: Call(attribute(Call(subprocess.Popen, ['touch', file]), 'wait')),
    'torch.hub': lambda file: Call(torch.hub._load_local, str(Path(written(
        f'{file}-hub/hubconf.py', f'def model():\n    {python(file)}')).parent), 'model'),
    'runpy': lambda file: Call(runpy.run_path, written(f'{file}.py', python(file))),
    'open': lambda file: Call(io.open, file, 'w'),
    'shutil': lambda file: Call(shutil.copyfile, written(f'{file}.py', ''), file),
    'NEWOBJ': lambda file: Trap.set(new=file),
    'BUILD': lambda file: Trap.set(build=file),
    'array of another type': lambda file: Call(multiarray._reconstruct, TrapArray, (0, ), b'b', state=(file, )),
    'a pickle within': lambda file: Call(pickle.loads, pickle.dumps(Call(eval, python(file)))),
}


def write_checkpoint(file: Path, content: object, protocol: int = 2) -> None:
    """As torch.save does, but for an arbitrary pickle."""
    pickled = content
    if not isinstance(content, bytes):
        pickled = pickle.dumps(dict(state_dict={}, message_hub=content), protocol)
    with zipfile.ZipFile(file, 'w') as archive:
        for name, part in (('data.pkl', pickled), ('byteorder', b'little'), ('version', b'3\n')):
            archive.writestr(f'archive/{name}', part)


def write_pickle(file: Path, content: object) -> None:
    """As a bare pickle, which torch takes for the format before its own."""
    file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(dict(state_dict={}, other=content), 2))


def write_legacy(file: Path, content: object) -> None:
    """As torch.save did before it wrote zip files."""
    if isinstance(content, bytes):
        number, protocol = (pickle.dumps(value, 2) for value in (0x1950a86a20f9469cfc6c, 1001))
        file.write_bytes(number + protocol + pickle.dumps(dict(little_endian=True), 2) + content + pickle.dumps([], 2))
    else:
        torch.save(dict(state_dict={}, other=content), file, _use_new_zipfile_serialization=False)


def write_tar(file: Path, content: object) -> None:
    """As torch.save did at first."""
    pickled = content if isinstance(content, bytes) else pickle.dumps(content, 2)
    with tarfile.open(file, 'w') as archive:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            info = tarfile.TarInfo(name)
            info.size = len(pickled)
            archive.addfile(info, io.BytesIO(pickled))


def write_nested(file: Path, content: object) -> None:
    """As a zip file behind a zip file, of which readers can take either."""
    torch.save(dict(state_dict={}), file)
    inner = file.with_suffix('.inner')
    write_checkpoint(inner, content)
    file.write_bytes(file.read_bytes() + inner.read_bytes())
    inner.unlink()


FORMATS = dict(zip=write_checkpoint, pickle=write_pickle, legacy=write_legacy, tar=write_tar, nested=write_nested)

# Files that lie: they run nothing, but declare more than they hold.


class _Storage:
    """Pickled as a storage of a number of elements."""

    def __init__(self, elements: int) -> None:
        self.elements = elements


class _StoragePickler(pickle.Pickler):

    def persistent_id(self, value: object) -> tuple | None:
        if isinstance(value, _Storage):
            return 'storage', torch.FloatStorage, '0', 'cpu', value.elements
        return None


def write_tensor(file: Path, elements: int, shape: tuple, stride: tuple, held: int, compressed: bool = False) -> None:
    """A checkpoint whose one weight has a storage of ``elements``, of which the file holds ``held``."""
    pickled = io.BytesIO()
    weight = Call(torch._utils._rebuild_tensor_v2, _Storage(elements), 0, shape, stride, False, OrderedDict())
    _StoragePickler(pickled, 2).dump(dict(state_dict=dict(weight=weight)))
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, part in (('data.pkl', pickled.getvalue()), ('byteorder', b'little'), ('data/0', bytes(4 * held)),
                           ('version', b'3\n')):
            archive.writestr(f'archive/{name}', part)


def write_truncated(file: Path) -> None:
    torch.save(dict(state_dict=dict(weight=torch.ones(100))), file)
    file.write_bytes(file.read_bytes()[:-200])


LIES: dict[str, Callable[[Path], object]] = {
    'a storage beyond the file': lambda file: write_tensor(file, 2**20, (2**20, ), (1, ), 4),
    'a storage of exabytes': lambda file: write_tensor(file, 2**60, (2**60, ), (1, ), 4),
    'a storage of negative size': lambda file: write_tensor(file, -4, (4, ), (1, ), 4),
    'a tensor beyond its storage': lambda file: write_tensor(file, 4, (2**20, ), (1, ), 4),
    'a stride beyond its storage': lambda file: write_tensor(file, 4, (2, ), (2**40, ), 4),
    'a tensor of negative size': lambda file: write_tensor(file, 4, (-4, ), (1, ), 4),
    'a file that inflates': lambda file: write_tensor(file, 2**24, (2**24, ), (1, ), 2**24, compressed=True),
    'a tensor without data': lambda file: torch.save(dict(weight=torch.empty(3, device='meta')), file),
    'a pickle without end': lambda file: file.write_bytes(b'\x80\x02' + b'(' * 10**5),
    'lists in lists': lambda file: file.write_bytes(b'\x80\x02' + b']' * 10**5 + b'a' * (10**5 - 1) + b'.'),
    'nothing': lambda file: file.write_bytes(b''),
    'text': lambda file: file.write_text('<html>404: Not found</html>'),
    'a truncated file': write_truncated,
}


def damaged(content: bytes, count: int) -> list[bytes]:
    """Copies of a file with a few bytes changed or cut out, most of them where its structure is."""
    chance, copies = random.Random(0), []
    for _ in range(count):
        copy = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            position = chance.randrange(len(copy))
            if chance.random() < 0.2:
                del copy[position:position + chance.randint(1, 40)]
            else:
                copy[position] = chance.randrange(256)
        copies.append(bytes(copy))
    return copies

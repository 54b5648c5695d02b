"""mmengine loads its checkpoints safely, and nothing that could run code; all other loads are torch's own."""
from __future__ import annotations

import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_checkpoints import PAYLOADS, Call, attribute, write_checkpoint
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from mmengine.utils import digit_version
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynconv_mm.compat.checkpoint import (
    NUMERIC,
    _PlainArray,
    _PlainPickle,
    mmengine_checkpoints,
    multiarray,
    wrap_mmengine_loaders,
)
from dynconv_mm.layers import ODConv2d

pytestmark = pytest.mark.skipif(digit_version(torch.__version__.partition('+')[0]) < digit_version('2.6'),
                                reason='torch.load has no weights_only by default')


# What mmengine's runner saves.


class ToyModel(BaseModel):

    def __init__(self) -> None:
        super().__init__()
        self.conv = ODConv2d(2, 3, 1)
        self.losses = []

    def forward(self, image, label, mode='loss'):
        loss = nn.functional.cross_entropy(self.conv(image).mean((2, 3)), label)
        self.losses.append(loss.item())
        return dict(loss=loss, accuracy=torch.tensor(0.5))


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    """Train two epochs of three iterations with all that goes into a checkpoint; returns the runner."""

    def run(**kwargs) -> Runner:
        torch.manual_seed(0)
        data = TensorDataset(torch.linspace(-1, 1, 432).view(6, 2, 6, 6), torch.arange(6) % 3)
        folder = tmp_path_factory.mktemp('run')
        runner = Runner(
            ToyModel(), str(folder), DataLoader(data, 2), train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)), log_level='ERROR', experiment_name=folder.name,
            param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
                             dict(type='CosineAnnealingLR', T_max=2)],
            custom_hooks=[dict(type='TemperatureAnnealingHook', epochs=1), dict(type='EMAHook')],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)), randomness=dict(seed=0), **kwargs)
        runner.message_hub.update_info_dict(numbers())
        runner.train()
        return runner

    return run


def numbers() -> dict[str, object]:
    """Numbers of numpy of every type that is allowed."""
    scalars = {f'scalar {code}': np.dtype(code).type(1) for code in NUMERIC}
    arrays = {f'array {code}': np.arange(2).reshape(2, 1).astype(code) for code in NUMERIC}
    return {**scalars, **arrays, 'Fortran': np.asfortranarray(np.eye(2)), 'empty': np.zeros((0, 3))}


@pytest.fixture(scope='module')
def trained(train) -> Runner:
    return train()


def assert_same(ours: object, theirs: object) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert_same(value, theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs):
            assert_same(*pair)
    elif isinstance(ours, HistoryBuffer):
        assert_same(vars(ours), vars(theirs))
        assert [ours.mean(), ours.min(), ours.current()] == [theirs.mean(), theirs.min(), theirs.current()]
    elif isinstance(ours, (np.ndarray, np.generic, torch.Tensor)):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and bool((ours == theirs).all())
    else:
        assert ours == theirs


@mmengine_checkpoints()
def load_default(file: str) -> dict:
    return torch.load(file)


@mmengine_checkpoints()
def load_weights_only(file: str) -> dict:
    return torch.load(file, weights_only=True)


def load_as_before_torch_2_6(file: str) -> dict:
    return torch.load(file, pickle_module=_PlainPickle)


@pytest.mark.parametrize('load', [load_default, load_weights_only, load_as_before_torch_2_6,
                                  CheckpointLoader.load_checkpoint])
def test_a_checkpoint_of_the_runner_loads(trained, load):
    file = f'{trained.work_dir}/epoch_1.pth'
    loaded = load(file)
    assert_same(loaded, torch.load(file, weights_only=False))
    assert loaded.keys() >= {'state_dict', 'ema_state_dict', 'message_hub', 'optimizer', 'param_schedulers', 'meta'}
    hub = loaded['message_hub']
    assert hub['log_scalars'].keys() >= {'train/loss', 'train/lr', 'train/accuracy', 'train/temperature'}
    for name, value in numbers().items():
        assert hub['runtime_info'][name].dtype == value.dtype
        np.testing.assert_array_equal(hub['runtime_info'][name], value)


def test_loaded_checkpoint_can_be_saved_again(trained, tmp_path):
    torch.save(load_default(f'{trained.work_dir}/epoch_1.pth'), tmp_path / 'again.pth')
    assert 'message_hub' in load_default(tmp_path / 'again.pth')


def test_runner_resumes(trained, train):
    resumed = train(load_from=f'{trained.work_dir}/epoch_1.pth', resume=True)
    assert resumed.iter == trained.iter == 6
    assert resumed.model.losses == trained.model.losses[3:]
    assert resumed.message_hub.get_scalar('train/loss').data[0].tolist() == pytest.approx(trained.model.losses)


REAL = [getattr, multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype, HistoryBuffer,
        *{type(np.dtype(code)) for code in NUMERIC}]


@pytest.fixture
def allowed():
    """What torch allows in all loads; restored in the end."""
    before = torch.serialization.get_safe_globals()
    yield lambda: set(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def test_all_other_loads_are_torchs_own(trained):
    """In a process that imports the package, and has loaded a checkpoint."""
    code = ('import sys, dynconv_mm, torch; from mmengine.runner import CheckpointLoader\n'
            'check = lambda: print([x for x in torch.serialization.get_safe_globals()'
            '                       if isinstance(x, tuple) or x.__module__.split(".")[0] != "torch"])\n'
            'check(); CheckpointLoader.load_checkpoint(sys.argv[1])\n'
            'check(); dynconv_mm.conversion.read_checkpoint(sys.argv[1]); check()\n'
            'torch.load(sys.argv[1], weights_only=True)')
    done = subprocess.run([sys.executable, '-c', code, f'{trained.work_dir}/epoch_1.pth'], capture_output=True,
                          text=True, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith('[')] == ['[]'] * 3
    assert done.returncode == 1 and 'UnpicklingError' in done.stderr


def test_what_a_user_allows_is_what_the_user_gets(allowed, tmp_path):
    """By name, and for good: before, while and after mmengine loads."""
    torch.serialization.add_safe_globals([*REAL, type(np.dtype('U4')), (HistoryBuffer.mean, 'mine')])
    before = allowed()
    write_checkpoint(tmp_path / 'mine.pth', [attribute(HistoryBuffer, 'update'), np.array(['text']), np.dtype('>f8')])
    for load in (torch.load, load_default, CheckpointLoader.load_checkpoint, torch.load):
        method, words, dtype = load(str(tmp_path / 'mine.pth'))['message_hub']
        assert method is HistoryBuffer.update and type(words) is np.ndarray and dtype == '>f8'
        assert allowed() == before


def test_a_user_may_allow_a_part(allowed, trained):
    for item in REAL:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([item])
        assert load_default(f'{trained.work_dir}/epoch_1.pth')['meta']['iter'] == 3
        assert allowed() == {item}


def test_threads_do_not_take_each_others_permission(trained):
    file, failed = f'{trained.work_dir}/epoch_1.pth', []

    def load() -> None:
        try:
            for _ in range(20):
                CheckpointLoader.load_checkpoint(file)
        except pickle.UnpicklingError as error:
            failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_loaders_of_others_stay(monkeypatch, trained):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    CheckpointLoader.register_scheme('', torch.load, force=True)
    wrap_mmengine_loaders()
    assert CheckpointLoader._schemes[''] is torch.load


def test_beside_a_loader_that_allows_numpy_itself(trained):
    """And takes it back afterwards."""
    file = f'{trained.work_dir}/epoch_1.pth'
    with mmengine_checkpoints():
        with torch.serialization.safe_globals(REAL):
            assert torch.load(file)['meta']['iter'] == 3
        assert torch.load(file)['meta']['iter'] == 3
    array = multiarray._reconstruct(_PlainArray, (0, ), b'b')
    array.__setstate__(np.arange(3.).__reduce__()[2])
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(array, protocol))
        assert type(again) is np.ndarray and again.tolist() == [0, 1, 2]


# Files of ill will.


def assert_refused(file: Path) -> None:
    for load in (load_default, load_weights_only, load_as_before_torch_2_6):
        with pytest.raises(pickle.UnpicklingError):
            load(file)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('kind', PAYLOADS)
def test_files_that_run_code_are_refused(tmp_path, kind, protocol):
    file, touched = tmp_path / 'bad.pth', tmp_path / 'touched'
    write_checkpoint(file, PAYLOADS[kind](str(touched)), protocol)
    assert_refused(file)
    assert not touched.exists()
    torch.load(file, weights_only=False)
    assert touched.exists(), 'the payload does nothing, so that refusing it shows nothing'


POINTER = bytes(8)


@pytest.mark.parametrize('content', [
    attribute(HistoryBuffer, '__class__'),
    attribute(HistoryBuffer, 'update'),
    attribute(attribute(HistoryBuffer, 'mean'), '__code__'),
    attribute('text', 'format'),
    Call(HistoryBuffer.mean, Call(HistoryBuffer)),
    Call(np.ndarray, (1, ), 'O', POINTER),
    Call(np.ndarray, (1, ), 'f8'),
    Call(multiarray._reconstruct, HistoryBuffer, (0, ), b'b'),
    Call(multiarray.scalar, np.dtype('f8'), 'text'),
    Call(np.dtype, 'O'),
    Call(np.dtype, 'f8,O'),
    Call(np.dtype, '>f8'),
    Call(np.dtype, [('a', 'O')]),
    np.array([None]),
    np.array(['text']),
    np.zeros(1, [('a', 'f8')]),
    np.datetime64('2020-01-01'),
    np.longdouble(1),
    _PlainArray,
    np.float64,
    b'\x80\x02c\nndarray\n.',
    b'\x80\x02cndarray\n\n.',
    b'\x80\x02cnumpy\nndarray\nX\x01\x00\x00\x001\x85\x81.',
], ids=lambda content: re.sub(' at 0x[0-9a-f]+', '', repr(getattr(content, 'parts', content)))[:60])
def test_all_else_is_refused(tmp_path, content):
    write_checkpoint(tmp_path / 'bad.pth', content)
    assert_refused(tmp_path / 'bad.pth')


def test_state_of_a_dtype_cannot_be_set(tmp_path):
    """Flags of objects would make numpy take numbers for pointers."""
    state = (3, '<', None, ('a', ), {'a': (np.dtype('f8'), 0)}, -1, -1, 63)
    write_checkpoint(tmp_path / 'odd.pth', Call(np.dtype, 'f8', False, True, state=state))
    assert np.dtype(torch.load(tmp_path / 'odd.pth', weights_only=False)['message_hub']).hasobject
    loaded = load_default(tmp_path / 'odd.pth')['message_hub']
    assert loaded == np.dtype('f8') and loaded.flags == 0 and loaded.fields is None

"""Weights are read from every usual wrapper, and nothing but weights."""
from __future__ import annotations

import os
import pickle
import sys

import pytest
import torch

from dynconv_mm import ODConvResNet
from dynconv_mm.conversion import CheckpointError, check_fit, read_state_dict, write_checkpoint

WEIGHTS = {'conv.weight': torch.arange(24.).view(2, 3, 2, 2), 'conv.bias': torch.ones(2)}
PREFIXED = {f'module.{name}': value for name, value in WEIGHTS.items()}


@pytest.mark.parametrize('wrapped', [WEIGHTS, PREFIXED, dict(state_dict=WEIGHTS, meta=dict(epoch=3)),
                                     dict(epoch=1, state_dict=PREFIXED, optimizer=dict(state={}), best_acc=7.),
                                     dict(model=WEIGHTS), dict(model_state_dict=PREFIXED)],
                         ids=['plain', 'module', 'mmengine', 'official', 'model', 'model_state_dict'])
def test_wrappers(tmp_path, wrapped):
    path = tmp_path / 'weights.pth'
    write_checkpoint(path, wrapped)
    weights = read_state_dict(path)
    assert weights.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0)


def test_safetensors(tmp_path):
    """Whatever the wrapper, the weights alone; of tensors that share memory too."""
    pytest.importorskip('safetensors')
    path, shared = tmp_path / 'weights.safetensors', torch.arange(6.)
    weights = {**PREFIXED, 'module.a': shared, 'module.b': shared[::2]}
    write_checkpoint(path, dict(state_dict=weights, meta=dict(epoch=1)))
    weights = read_state_dict(path)
    for name, value in {**WEIGHTS, 'a': shared, 'b': shared[::2]}.items():
        assert torch.equal(weights.pop(name), value)
    assert not weights
    with pytest.raises(CheckpointError, match='holds no weights'):
        write_checkpoint(path, dict(epoch=1))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match='truncated or no checkpoint'):
        read_state_dict(path)


def test_safetensors_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    monkeypatch.delitem(sys.modules, 'safetensors.torch', raising=False)
    (tmp_path / 'weights.safetensors').write_bytes(b'')
    for use in (read_state_dict, lambda path: write_checkpoint(path, WEIGHTS)):
        with pytest.raises(ImportError, match=r'safetensors is built on|pip install .*safetensors'):
            use(tmp_path / 'weights.safetensors')


@pytest.mark.parametrize('prefix', [None, 'backbone'])
def test_safetensors_as_mmengine_loads_them(tmp_path, prefix):
    pytest.importorskip('safetensors')
    source, model = (ODConvResNet(18, kernel_num=1, stem_channels=8, base_channels=8) for _ in range(2))
    path = tmp_path / 'weights.safetensors'
    write_checkpoint(path, {f'backbone.{name}' if prefix else name: value + 1
                            for name, value in source.state_dict().items()})
    model.init_cfg = dict(type='Pretrained', checkpoint=str(path), **dict(prefix=f'{prefix}.') if prefix else {})
    model.init_weights()
    assert all(torch.equal(model.state_dict()[name], value + 1) for name, value in source.state_dict().items())


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        read_state_dict(tmp_path / 'nowhere.pth')


@pytest.mark.parametrize('part', [0., 0.3, 0.6, 0.99])
@pytest.mark.parametrize('zipped', [True, False])
def test_a_truncated_file(tmp_path, part, zipped):
    path = tmp_path / 'weights.pth'
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:int(part * path.stat().st_size)])
    with pytest.raises(CheckpointError, match='weights.pth'):
        read_state_dict(path)


class Payload:

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path), )


@pytest.mark.parametrize('save', [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))],
                         ids=['torch', 'pickle'])
def test_code_is_refused_and_not_run(tmp_path, save):
    path = tmp_path / 'weights.pth'
    save(dict(state_dict=WEIGHTS, meta=Payload(tmp_path / 'run')), path)
    with pytest.raises(CheckpointError, match='weights.pth'):
        read_state_dict(path)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('content', [[WEIGHTS], dict(), dict(state_dict={}), dict(meta=3), {1: torch.ones(2)},
                                     dict(WEIGHTS, lr=0.1), dict(state_dict=dict(WEIGHTS, lr=0.1))], ids=str)
def test_no_weights(tmp_path, content):
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    with pytest.raises(CheckpointError, match='weights.pth'):
        read_state_dict(path)


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'weights.pth'
    write_checkpoint(path, WEIGHTS)
    old = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        write_checkpoint(path, dict(WEIGHTS, local=lambda: None))
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_fit():
    check_fit(WEIGHTS, WEIGHTS, 'a layer')
    other = {'conv.weight': torch.ones(2, 3, 1, 1), 'bn.weight': torch.ones(2)}
    with pytest.raises(CheckpointError) as raised:
        check_fit(WEIGHTS, other, 'the layer')
    message = str(raised.value)
    assert 'do not fit the layer' in message
    assert 'missing (1): bn.weight' in message
    assert 'unexpected (1): conv.bias' in message
    assert 'conv.weight: [2, 3, 2, 2] instead of [2, 3, 1, 1]' in message


def test_a_long_list_is_cut():
    with pytest.raises(CheckpointError, match=r'missing \(30\).* 20 more'):
        check_fit({}, {f'layer{index}.weight': torch.ones(1) for index in range(30)}, 'it')

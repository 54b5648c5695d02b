"""Two processes that share a model's parameters, by FSDP1 and FSDP2, train as one, and their checkpoints load."""
from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conv_layers import LAYERS

pytest.importorskip('torch.distributed.device_mesh', reason='torch 2.1 has neither FSDP2 nor these checkpoints')
SCRIPT = Path(__file__).with_name('sharded_training.py')


@pytest.fixture(scope='module')
def results(tmp_path_factory) -> Callable[[str], dict[tuple[str, str], dict]]:
    """What torchrun with two processes reports of a layer and others, by way and layer; the first runs apart."""
    first, *others = LAYERS
    names = {False: [first], True: others}
    reports = functools.cache(lambda is_other: run(tmp_path_factory.mktemp('sharded'), names[is_other]))
    return lambda name: reports(name != first)


def run(folder: Path, names: list[str]) -> dict[tuple[str, str], dict]:
    """The lines of one run."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--master_addr', '127.0.0.1',
         '--master_port', str(port), str(SCRIPT), str(folder), *names],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'GLOO_SOCKET_IFNAME': 'lo',
             'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == 0, done.stdout[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"way"')]
    return {(line['way'], line['name']): line for line in lines}


def check(result: dict) -> None:
    assert 'error' not in result, result['error']
    assert result['moved'] > 1e-3
    assert max(result[what] for what in ('step', 'loaded', 'resumed')) < 1e-9


@pytest.mark.xdist_group('torchrun')
@pytest.mark.first_is_quick('name')
@pytest.mark.parametrize('way', ['FSDP1', 'FSDP2'])
def test_it_trains_as_one_process(results, way, name):
    if not any(key[0] == way for key in results(name)):
        pytest.skip(f'this torch has no {way}')
    check(results(name)[way, name])


@pytest.mark.slow
@pytest.mark.xdist_group('torchrun')
@pytest.mark.parametrize('name', ['ODConv2d 4x', 'DyConv2d'])
def test_flat_parameters(results, name):
    check(results(name)['FSDP1, flat', name])

"""Two processes train as one with all images: gradients, synchronised norms, and mmengine's runner under torchrun."""
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
import torch
from mmengine.model import revert_sync_batchnorm
from thin_networks import BACKBONES, METHODS, settle
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.layers import ODConv2d

SCRIPT = Path(__file__).with_name('distributed_training.py')


@pytest.fixture(scope='module')
def results(tmp_path_factory, digits) -> Callable[[str], list[dict]]:
    """What torchrun with two processes reports of a method, 'classifier' or 'detector'; the first method runs apart."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    first, *others = (*METHODS, 'classifier', 'detector')
    parts = {False: [first], True: others}
    reports = functools.cache(lambda is_other: run(digits, tmp_path_factory.mktemp('distributed'), parts[is_other]))
    return lambda part: reports(part != first)


def run(digits: Path, folder: Path, parts: list[str]) -> list[dict]:
    """The lines of one run."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--master_addr', '127.0.0.1',
         '--master_port', str(port), str(SCRIPT), str(digits), str(folder), *parts],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'GLOO_SOCKET_IFNAME': 'lo'})
    assert done.returncode == 0, done.stdout[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"what"')]


@pytest.mark.xdist_group('torchrun')
@pytest.mark.first_is_quick('method')
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('what', ['norms in eval mode', 'SyncBN by norm_cfg',
                                  'SyncBN by conversion, one image a process'])
def test_gradients_are_those_of_one_process(results, count, what, method):
    result, = (line for line in results(method) if (line['what'], line.get('method')) == (what, method))
    count(f'comparisons of two processes with one, {what}')
    assert result['gradients'] < 1e-6 and result['buffers'] < 1e-9


@pytest.mark.slow
@pytest.mark.xdist_group('torchrun')
@pytest.mark.parametrize('what', ['classifier', 'detector'])
def test_the_runner_trains(results, count, what):
    result, = (line for line in results(what) if line['what'] == what)
    count('configs trained by two processes under torchrun')
    assert not result['differs'] and not result['lost'] and not result['unsaved']
    assert result['iterations'] == dict(classifier=2, detector=3)[what]


# What a synchronised norm is on one CPU.


@pytest.mark.parametrize('name', BACKBONES)
def test_conversion_keeps_names_and_results(count, name):
    torch.manual_seed(0)
    plain = settle(BACKBONES[name]())
    image = torch.randn(2, 3, 48, 40)
    expected, state = plain(image), plain.state_dict()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(plain).eval()  # torch 2.1 converts to training mode
    count('networks with synchronised norms compared in eval mode')
    norms = [module for module in converted.modules() if isinstance(module, _BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert converted.state_dict().keys() == state.keys()
    torch.testing.assert_close(converted(image), expected)
    torch.testing.assert_close(revert_sync_batchnorm(converted)(image), expected)


def test_norms_in_attentions_are_converted():
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(ODConv2d(4, 6, 3))
    assert isinstance(layer.attention.bn, nn.SyncBatchNorm)

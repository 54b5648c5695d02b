"""A model can be copied, pickled, saved whole, handed to other processes and called by many threads at once."""
from __future__ import annotations

import copy
import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch
from thin_networks import BACKBONES, METHODS, settle
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dynconv_mm.functional import PLANS, use_plan

THREADS = 8


@pytest.fixture(params=BACKBONES)
def model(request) -> nn.Module:
    torch.manual_seed(0)
    return settle(BACKBONES[request.param]()).requires_grad_(False)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 48, 40, generator=torch.Generator().manual_seed(count))


def through_file(model: nn.Module, tmp_path) -> nn.Module:
    torch.save(model, tmp_path / 'model.pt')
    return torch.load(tmp_path / 'model.pt', weights_only=False)


@pytest.mark.one_at_a_time('model', 'again')
@pytest.mark.parametrize('again', [lambda model, _: copy.deepcopy(model), through_file,
                                   lambda model, _: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'torch.save', 'pickle'])
def test_a_copy_gives_the_same_and_stands_by_itself(model, count, tmp_path, again):
    expected, = model(images())
    other = again(model, tmp_path)
    count('models copied by deepcopy, pickle and torch.save')
    assert torch.equal(*other(images()), expected)
    for parameter in other.parameters():
        parameter.fill_(1.)
    assert torch.equal(*model(images()), expected)
    other.train()
    assert not any(module.training for module in model.modules())


@pytest.mark.first_is_quick('model')
def test_eight_threads_at_once(model, count):
    """Each thread on images and sizes of its own, again and again."""
    batches = [torch.randn(1 + index % 3, 3, 32 + 8 * index, 40) for index in range(THREADS)]
    expected = [model(batch)[0] for batch in batches]
    repeated = 3 * list(range(THREADS))
    count('calls of one model by eight threads at once', len(repeated))
    with ThreadPoolExecutor(THREADS) as threads:
        for index, (actual, ) in zip(repeated, threads.map(lambda index: model(batches[index]), repeated)):
            assert torch.equal(actual, expected[index])


@pytest.mark.one_at_a_time('name', 'plan')
@pytest.mark.parametrize('plan', [plan for plan in PLANS if plan != 'triton'])
@pytest.mark.parametrize('name', ['ODConvResNet', 'ODConvMobileNetV2'])
def test_eight_threads_by_every_plan(count, name, plan):
    """The plans that keep memory from call to call keep it for each thread."""
    torch.manual_seed(0)
    model = settle(BACKBONES[name]()).requires_grad_(False)
    batches = [torch.randn(1 + index % 3, 3, 32 + 8 * (index % 4), 40) for index in range(THREADS)]

    def run(batch: torch.Tensor) -> torch.Tensor:
        with use_plan(plan):  # of this thread
            return model(batch)[0]

    expected = [run(batch) for batch in batches]
    count('calls of one model by eight threads at once', THREADS)
    with ThreadPoolExecutor(THREADS) as threads:
        for actual, other in zip(threads.map(run, batches), expected):
            assert torch.equal(actual, other)


def test_threads_that_train(count):
    """Each its own copy: what the backward pass keeps is not another's."""
    torch.manual_seed(0)
    models = [settle(network().double()).train(False) for network in METHODS.values()]

    def gradients(model: nn.Module) -> list[torch.Tensor]:
        loss = sum(y.square().mean() for y in model(images().double()))
        return torch.autograd.grad(loss, list(model.parameters()))

    expected = [gradients(model) for model in models]
    count('backward passes in threads at once', len(models))
    with ThreadPoolExecutor(len(models)) as threads:
        for actual, other in zip(threads.map(gradients, models), expected):
            torch.testing.assert_close(actual, other, rtol=1e-9, atol=1e-12)


@pytest.mark.xdist_group('processes')
@pytest.mark.first_is_quick('method')
@pytest.mark.parametrize('method', ['fork', 'spawn'])
@pytest.mark.skipif(sys.platform != 'linux', reason='needs fork')
def test_other_processes(count, method):
    """Pickled into a worker, every method gives there what it gives here."""
    torch.manual_seed(0)
    models = [settle(network()).requires_grad_(False) for network in METHODS.values()]
    expected = [model(images()) for model in models]
    count(f'models run in a worker by {method}', len(models))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as worker:
        for model, (other, ) in zip(models, expected):
            actual, = worker.submit(model, images()).result(timeout=120)
            torch.testing.assert_close(actual, other)


class Features(Dataset):
    """What a frozen model makes of images, in the workers of a data loader."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.model(images(index + 1)[:1])[0]


@pytest.mark.xdist_group('processes')
@pytest.mark.skipif(sys.platform != 'linux', reason='needs fork')
def test_workers_of_a_data_loader(count):
    torch.manual_seed(0)
    features = Features(settle(METHODS['ODConv']()).requires_grad_(False))
    expected = torch.cat([features[index] for index in range(len(features))])
    count('models run in a data loader worker')
    loader = DataLoader(features, 2, num_workers=1, multiprocessing_context='fork')
    torch.testing.assert_close(torch.cat([batch.flatten(0, 1) for batch in loader]), expected)

"""The page's table is that of the results; a run trains, and starts where it says."""
from __future__ import annotations

import json

import pytest
import torch


@pytest.fixture
def tool(load_tool):
    return load_tool('compare_fine_tuning')


def test_page(tool):
    results = json.loads(tool.RESULTS.read_text())
    page = tool.PAGE.read_text(encoding='utf-8')
    assert tool.page_with(page, 'compare_fine_tuning', {'digits': tool.render(results)}) == page


def test_images(tool):
    images = tool.load_images()
    assert {name: (len(x), sorted(set(labels.tolist()))) for name, (x, labels) in images.items()} == \
        {'pretrain': (901, [0, 1, 2, 3, 4]), 'train': (200, [0, 1, 2, 3, 4]), 'test': (696, [0, 1, 2, 3, 4])}
    for hard in (False, True):
        seen = tool.view(images['train'][0], hard)
        assert seen.shape == (200, 3, tool.IMAGE_SIZE, tool.IMAGE_SIZE) and seen.isfinite().all()


@pytest.mark.parametrize('name', ['static ResNet18', 'static ResNet18, from scratch', 'ODConv (4×), kernels scaled'])
def test_a_run(tool, tmp_path, name):
    values = {tool.run(tool.METHODS[name], 0, 1, 2, tmp_path, name) for _ in range(2)}
    assert len(values) == 1 and 0 <= values.pop() <= 100
    assert len(list(tmp_path.iterdir())) == tool.METHODS[name].warm  # kept for the next run


def test_training_learns(tool):
    torch.manual_seed(0)
    network = tool.make_network(tool.METHODS['static ResNet18'])
    images = tool.load_images()['pretrain']
    tool.train(network, *images, 40, False, {}, 'test')
    with torch.no_grad():
        found = network.eval()(tool.view(images[0], False)).argmax(1)
    assert (found == images[1]).float().mean() > .8

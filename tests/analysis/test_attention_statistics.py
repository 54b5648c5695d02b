"""Statistics of attentions against two passes in float64 over the attentions of all images."""
import copy
import json

import numpy as np
import pytest
import torch
from model_state import model_state
from torch import nn

from dynconv_mm import CondConv2d, CondConvResNet, DyConv2d, FDConv2d, KWConv2d, ODConv2d, ODConvResNet
from dynconv_mm.analysis.attention_statistics import AttentionStatistics


def run(model, images, batch_size):
    statistics = AttentionStatistics(model)
    assert statistics
    with statistics.collect(), torch.no_grad():
        for batch in images.split(batch_size):
            model(batch)
    return statistics


@pytest.mark.parametrize('share', [True, False])
@pytest.mark.parametrize('batch_size', [1, 4, 11])
def test_two_passes(share, batch_size):
    torch.manual_seed(0)
    first = ODConv2d(3, 5, 3, padding=1, kernel_num=2, share_attention=share)
    second = ODConv2d(5, 4, 1, kernel_num=3)
    model = nn.Sequential(first, nn.ReLU(), second).double().eval()
    images = 9 * torch.randn(11, 3, 6, 7, dtype=torch.float64)
    statistics = run(model, images, batch_size)
    with torch.no_grad():
        expected = {'0': first.compute_attentions(images), '2': second.compute_attentions(model[:2](images))}
    assert list(statistics.layers) == ['0', '2']
    assert set(statistics.layers['2']) == {'channel', 'filter', 'kernel'}  # no α_s for 1 × 1
    for layer, attentions in expected.items():
        assert set(statistics.layers[layer]) == set(attentions)
        for kind, values in attentions.items():
            found, values = statistics.layers[layer][kind], values.numpy()
            mean = values.sum(0) / len(values)
            np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
            np.testing.assert_allclose(found.variance, ((values - mean)**2).sum(0) / 11, rtol=1e-9)
            np.testing.assert_allclose(found.minimum, values.min(0), rtol=1e-12)  # rounded by the batch
            np.testing.assert_allclose(found.maximum, values.max(0), rtol=1e-12)
            np.testing.assert_array_equal(found.histogram, np.histogram(values, 100, (0, 1))[0])
            assert found.summary()['std'] == pytest.approx(values.std(), rel=1e-9)


def test_network_with_folded_norms():
    """In eval mode a block's norms are folded into its convolutions, and all layers are seen all the same."""
    model = ODConvResNet(depth=18, kernel_num=2, stem_channels=4, base_channels=4).eval()
    statistics = run(model, torch.randn(3, 3, 32, 32), 2)
    assert list(statistics.layers) == [name for name, module in model.named_modules() if isinstance(module, ODConv2d)]
    assert {found.count for layer in statistics.layers.values() for found in layer.values()} == {3}


def test_kernel_warehouse():
    """How much of each cell is in a mixture, whatever its sign."""
    torch.manual_seed(0)
    model = nn.Sequential(KWConv2d(3, 4, 3), nn.ReLU(), KWConv2d(4, 2, 3)).double().eval()
    images = torch.randn(5, 3, 6, 7, dtype=torch.float64)
    statistics = run(model, images, 2)
    with torch.no_grad():
        alpha = model[2].compute_attentions(model[:2](images))
    assert list(statistics.layers) == ['0', '2'] and (alpha < 0).any()
    np.testing.assert_allclose(statistics.layers['2']['cell'].mean, alpha.abs().mean((0, 1)), rtol=1e-12)


def test_dyconv_and_condconv():
    torch.manual_seed(0)
    model = nn.Sequential(DyConv2d(3, 4, 3), CondConv2d(4, 2, 3)).double().eval()
    images = 9 * torch.randn(5, 3, 8, 8, dtype=torch.float64)
    statistics = run(model, images, 2)
    assert {name: set(kinds) for name, kinds in statistics.layers.items()} == {'0': {'kernel'},
                                                                               '1.routing': {'kernel'}}
    with torch.no_grad():
        routing = model[1].routing(model[0](images))
    np.testing.assert_allclose(statistics.layers['1.routing']['kernel'].mean, routing.mean(0), rtol=1e-12)
    assert statistics.layers['1.routing']['kernel'].mean.shape == (8, )


def test_shared_routing_counts_once():
    model = CondConvResNet(depth=18, kernel_num=2, stem_channels=4, base_channels=4).eval()
    statistics = run(model, torch.randn(2, 3, 32, 32), 2)
    assert len(statistics.layers) == 3  # blocks
    assert {found['kernel'].count for found in statistics.layers.values()} == {2}


def test_nothing_to_collect():
    assert not AttentionStatistics(nn.Conv2d(2, 3, 1))


def test_json():
    statistics = run(nn.Sequential(ODConv2d(3, 2, 3)).eval(), torch.randn(2, 3, 5, 5), 2)
    numbers = json.loads(json.dumps(statistics.to_json()))['0']['spatial']
    assert len(numbers['element_mean']) == len(numbers['element_std']) == 9
    assert (numbers['samples'], sum(numbers['histogram'])) == (2, 18)


def test_layers_have_no_methods_of_their_own_meanwhile():
    """With such a copy of a model would be served by the original's layers."""
    model = nn.Sequential(ODConv2d(3, 4, 3), DyConv2d(4, 4, 3), CondConv2d(4, 2, 3)).eval()
    image, before = torch.randn(1, 3, 9, 9), model_state(model)
    with torch.no_grad():
        with AttentionStatistics(model).collect():
            attributes = [vars(module).keys() for module in model.modules()]
            other = copy.deepcopy(model)
            for layer in other:
                layer.neutralize_attention()
            found = other(image)
        assert model_state(model) == before
        assert [vars(module).keys() for module in model.modules()] == attributes
        for layer in model:
            layer.neutralize_attention()
        torch.testing.assert_close(found, model(image))


def test_hooks_are_removed_after_a_failure():
    model = nn.Sequential(CondConv2d(3, 4, 3), ODConv2d(4, 2, 3)).eval()
    before, statistics = model_state(model), AttentionStatistics(model)
    with pytest.raises(ValueError), statistics.collect():
        model(torch.randn(1, 5, 9, 9))
    assert model_state(model) == before


def test_fdconv():
    """Its global attentions, which are sigmoids too."""
    layer, images = FDConv2d(18, 20, 3, kernel_num=3).eval(), torch.randn(4, 18, 7, 6)
    nn.init.normal_(layer.attention.kernel_fc.weight)
    statistics = run(nn.Sequential(layer), images, 2).layers['0']
    assert set(statistics) == {'channel', 'filter', 'spatial', 'kernel'}
    with torch.no_grad():
        expected = layer.compute_attentions(images)['kernel'].double().mean(0).numpy()
    np.testing.assert_allclose(statistics['kernel'].mean, expected, rtol=1e-5)

"""The variance of Φ against its definition."""
import numpy as np
import pytest
import torch
from model_state import model_state
from torch import nn

from dynconv_mm import DCDConv2d
from dynconv_mm.analysis.phi_variance import PhiVariance


@pytest.mark.parametrize('batch_size', [1, 3, 7])
def test_definition(batch_size):
    torch.manual_seed(0)
    first = DCDConv2d(6, 8, 3, padding=1, variant='paper', fusion='joint')
    model = nn.Sequential(first, DCDConv2d(8, 4, 1, fusion=None), DCDConv2d(4, 8, 1, variant='basic')).double().eval()
    images = 3 * torch.randn(7, 6, 5, 4, dtype=torch.float64) + 1
    phi = PhiVariance(model)
    assert phi
    with torch.no_grad():
        with phi.collect():
            for batch in images.split(batch_size):
                model(batch)
        inputs = {'0': images, '2': model[:2](images)}
        coefficients = {name: model[int(name)].compute_coefficients(x)[1].numpy() for name, x in inputs.items()}
    assert list(phi.layers) == ['0', '2']  # the middle one has no Φ
    for name, figures in phi.layers.items():
        values, x = coefficients[name], inputs[name].numpy()
        sigma = ((values - values.mean(0))**2).mean(0).sum() / values[0].size
        variance = ((x - x.mean())**2).mean()
        assert figures['phi'] == pytest.approx(sigma, rel=1e-10)
        assert figures['input'] == pytest.approx(variance, rel=1e-10)
        assert figures['normalized'] == pytest.approx(sigma / variance, rel=1e-10)
    assert phi.to_json() == phi.layers


def test_classifier():
    pytest.importorskip('mmpretrain')
    from dynconv_mm.models import DCDLinearClsHead
    head = nn.Sequential(DCDLinearClsHead(num_classes=3, in_channels=16)).eval()
    phi, features = PhiVariance(head), torch.randn(5, 16)
    with torch.no_grad():
        with phi.collect():
            head((features, ))
        expected = head[0]._coefficients(features)[1].double()
    assert phi.layers['0']['phi'] == pytest.approx(expected.var(0, correction=0).mean().item(), rel=1e-6)
    assert phi.layers['0']['input'] == pytest.approx(features.double().var(correction=0).item(), rel=1e-6)


def test_constant_input():
    layer = nn.Sequential(DCDConv2d(4, 4, 1)).eval()
    phi = PhiVariance(layer)
    with phi.collect(), torch.no_grad():
        layer(torch.zeros(2, 4, 3, 3))
    assert np.isnan(phi.layers['0']['normalized'])


def test_nothing_to_collect():
    assert not PhiVariance(nn.Sequential(nn.Conv2d(2, 3, 1), DCDConv2d(3, 3, 1, fusion=None)))


def test_the_model_stays_as_it_is():
    model = nn.Sequential(DCDConv2d(4, 4, 1)).eval()
    before = model_state(model)
    attributes = [vars(module).keys() for module in model.modules()]
    with PhiVariance(model).collect():
        assert [vars(module).keys() for module in model.modules()] == attributes
        model(torch.randn(2, 4, 3, 3))
    assert model_state(model) == before

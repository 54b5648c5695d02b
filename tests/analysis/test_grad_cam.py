"""Grad-CAM by its definition, and what it needs."""
import sys

import pytest
import torch
from model_state import model_state
from torch import nn
from torch.nn import functional as F

from dynconv_mm import ODConvResNet
from dynconv_mm.analysis.grad_cam import grad_cam


class Classifier(nn.Module):
    """What is asked of mmpretrain's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ODConvResNet(depth=18, kernel_num=2, stem_channels=4, base_channels=4, strides=(1, 2, 1, 1))
        self.head = nn.Linear(32, 5)

    def forward(self, inputs, mode):
        assert mode == 'tensor'
        return self.head(self.backbone(inputs)[-1].mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.mark.parametrize('labels', [None, torch.tensor([3, 0])], ids=['predicted', 'given'])
def test_definition(model, labels):
    images = torch.randn(2, 3, 24, 32)
    cam = grad_cam(model, images, labels)
    features = model.backbone(images)[-1]
    logits = model.head(features.mean((2, 3)))
    expected = logits.argmax(1) if labels is None else labels
    gradient, = torch.autograd.grad(logits[[0, 1], expected].sum(), features)
    maps = F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True))
    maps = F.interpolate(maps, (24, 32), mode='bilinear')[:, 0]
    assert cam.maps.shape == (2, 24, 32)
    for ours, theirs in zip(cam.maps, maps):
        torch.testing.assert_close(ours, theirs / theirs.max() if theirs.max() > 0 else theirs)
    assert cam.maps.max() == 1
    assert torch.equal(cam.labels, expected)
    torch.testing.assert_close(cam.probabilities, logits.softmax(1)[[0, 1], expected])
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_plus_plus(model):
    """Grad-CAM++'s equations with Y = exp(S), position by position: Eq. 10 for α, 5 for the weights, then its map."""
    model, images = model.double(), torch.randn(2, 3, 24, 32).double()
    cam = grad_cam(model, images, method='grad-cam++')
    features = model.backbone(images)[-1]
    scores = model.head(features.mean((2, 3))).amax(1)
    gradient, = torch.autograd.grad(scores.sum(), features)
    for sample in range(2):
        g, a = gradient[sample], features[sample].detach()
        first, second, third = (scores[sample].exp().item() * g**order for order in (1, 2, 3))  # derivatives of Y
        alpha = second / (2 * second + a.sum((1, 2), keepdim=True) * third)
        weights = (alpha.where(g > 0, torch.zeros_like(g)) * first.clamp(min=0)).sum((1, 2))
        expected = F.relu((weights[:, None, None] * a).sum(0))
        expected = F.interpolate(expected[None, None], (24, 32), mode='bilinear')[0, 0]
        torch.testing.assert_close(cam.maps[sample], expected / expected.max(), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(cam.maps, grad_cam(model, images).maps, atol=1e-2)


def test_bad_method(model):
    with pytest.raises(ValueError, match="method must be one of .*'grad-cam', 'grad-cam.*but is 'cam'"):
        grad_cam(model, torch.randn(1, 3, 16, 16), method='cam')


def test_frozen_network_and_another_layer(model):
    model.requires_grad_(False)
    cam = grad_cam(model, torch.randn(1, 3, 16, 16), layer='backbone.layer2')
    assert 0 <= cam.maps.min() <= cam.maps.max() <= 1


def test_bad_layer(model):
    for layer in ('', 'backbone.none'):
        with pytest.raises(ValueError, match='layer must be the name of a module'):
            grad_cam(model, torch.randn(1, 3, 16, 16), layer=layer)
    with pytest.raises(ValueError, match='layer must put out maps'):
        grad_cam(model, torch.randn(1, 3, 16, 16), layer='head')


def test_without_captum(model, monkeypatch):
    monkeypatch.setitem(sys.modules, 'captum', None)
    monkeypatch.setitem(sys.modules, 'captum.attr', None)
    with pytest.raises(ImportError, match='pip install captum'):
        grad_cam(model, torch.randn(1, 3, 16, 16))


def test_the_model_stays_as_it_is(model):
    """In training mode too, in which its norms would take the images for training data."""
    images = torch.randn(2, 3, 24, 32)
    expected = grad_cam(model, images)
    model.train().backbone.layer1.eval()
    before = model_state(model)
    cam = grad_cam(model, images)
    assert model_state(model) == before
    assert torch.equal(cam.maps, expected.maps) and torch.equal(cam.probabilities, expected.probabilities)

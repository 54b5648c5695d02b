"""Fifty steps of training in bfloat16 learn, and nothing becomes NaN."""
from __future__ import annotations

import pytest
import torch
from thin_networks import METHODS
from torch import nn
from torch.nn import functional as F

from dynconv_mm.layers.kernel_warehouse import WarehouseLayer
from dynconv_mm.layers.temperature import TemperatureMixin

STEPS = 50


@pytest.mark.first_is_quick('method')
@pytest.mark.parametrize('method', METHODS)
def test_training(count, method):
    torch.manual_seed(0)
    backbone = METHODS[method]()
    classifier = nn.Linear(backbone(torch.randn(2, 3, 32, 32))[0].shape[1], 2)
    model = nn.ModuleList([backbone, classifier]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    labels = torch.arange(8) % 2
    for module in model.modules():
        if isinstance(module, TemperatureMixin):
            # as at the start of a pre-training: later on fresh attentions amplify all changes
            module.set_temperature(1 if isinstance(module, WarehouseLayer) else 30)
    # what tells the classes apart is a gradient from the left to the right; the same images in each step
    images = torch.linspace(-1, 1, 32) * (labels * 2 - 1).view(-1, 1, 1, 1) + 0.3 * torch.randn(8, 3, 24, 32)
    losses = []
    for _ in range(STEPS):
        count('steps of training in bfloat16')
        with torch.autocast('cpu', torch.bfloat16):
            features, = backbone(images)
            loss = F.cross_entropy(classifier(features.mean((2, 3))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        assert loss.isfinite()
    for name, value in model.state_dict().items():
        assert value.isfinite().all(), name
    assert sum(losses[-10:]) < sum(losses[:10]) / 2, losses

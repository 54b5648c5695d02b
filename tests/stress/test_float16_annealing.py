"""Training in float16, gradients scaled, while the temperature is annealed: what automatic mixed precision on a GPU
does, as far as a CPU does it."""
from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dynconv_mm.engine.hooks import TemperatureAnnealingHook
from dynconv_mm.layers import DyConv2d, KWConv2d, ODConv2d
from dynconv_mm.layers.temperature import TemperatureMixin

STEPS = 500

if not hasattr(torch.amp, 'GradScaler'):
    pytest.skip('needs gradients that are scaled on CPUs, torch 2.3 or later', allow_module_level=True)


@pytest.mark.first_is_quick('layer')
@pytest.mark.parametrize('layer,memory_format', [
    (KWConv2d, torch.contiguous_format), (ODConv2d, torch.contiguous_format), (ODConv2d, torch.channels_last),
    (DyConv2d, torch.channels_last)], ids=['KW-NCHW', 'ODConv-NCHW', 'ODConv-NHWC', 'DyConv-NHWC'])
def test_annealed(count, layer, memory_format):
    torch.manual_seed(0)
    model = nn.Sequential(layer(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), layer(8, 12, 1), nn.BatchNorm2d(12),
                          nn.ReLU(), layer(12, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler('cpu', growth_interval=100)
    start, end = (1, 0) if layer is KWConv2d else (30, 1)
    annealing = TemperatureAnnealingHook(start, end, epochs=1)
    labels = torch.arange(8) % 2
    images = torch.linspace(-1, 1, 16) * (labels * 2 - 1).view(-1, 1, 1, 1) + 0.3 * torch.randn(8, 3, 16, 16)
    images = images.to(memory_format=memory_format)
    losses, smaller = [], 0
    for step in range(STEPS):
        count('steps of training in float16')
        for module in model.modules():
            if isinstance(module, TemperatureMixin):
                module.set_temperature(annealing.temperature_at(step, STEPS))
        with torch.autocast('cpu', torch.float16):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        smaller += scaler.get_scale() < before
        losses.append(float(loss.detach()))
        assert loss.isfinite()
    assert float(next(module.temperature for module in model.modules() if isinstance(module, TemperatureMixin))) \
        == pytest.approx(end, abs=0.1)
    for name, value in model.state_dict().items():
        assert value.isfinite().all(), name
    # a step is left out where a gradient overflows; more than those by which the scale is found are a fault
    assert smaller < STEPS / 20 and scaler.get_scale() >= 1
    assert sum(losses[-50:]) < sum(losses[:50]) / 2

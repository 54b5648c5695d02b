"""A KernelWarehouse learns digits while τ falls."""
from __future__ import annotations

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dynconv_mm.models import KWMobileNetV2, KWResNet

ITERATIONS = 60
#: with the temperature that it ends at: a MobileNetV2, all of whose layers are dynamic, takes longer than this at 0
NETWORKS = {
    'resnet': (0., lambda: KWResNet(18, stem_channels=8, base_channels=8, cell_num_ratio=1 / 2, cell_in_ratio=1 / 2,
                               num_stages=2, out_indices=(1, ), temperature=1.)),
    'mobilenet': (.5, lambda: KWMobileNetV2(widen_factor=.25, out_indices=(2, ), temperature=1.)),
}


class Classifier(BaseModel):

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.fc = backbone, nn.LazyLinear(10)
        self.fc(backbone.eval()(torch.zeros(1, 3, 32, 32))[0].mean((2, 3)))

    def forward(self, image: Tensor, label: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        return dict(loss=nn.functional.cross_entropy(self.fc(self.backbone(image)[0].mean((2, 3))), label))


class Watch(Hook):
    """Notes the loss and the temperature of each iteration."""

    def __init__(self) -> None:
        self.losses, self.temperatures = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].item())
        self.temperatures.append(next(module.temperature.item() for module in runner.model.modules()
                                      if hasattr(module, 'temperature')))


@pytest.mark.first_is_quick('network')
@pytest.mark.parametrize('network', NETWORKS)
def test_the_loss_falls(network, tmp_path, monkeypatch):
    digits = pytest.importorskip('sklearn.datasets').load_digits()
    images = torch.from_numpy(digits.images[:512]).float()[:, None].expand(-1, 3, -1, -1) / 8 - 1
    data = TensorDataset(nn.functional.interpolate(images, size=32), torch.from_numpy(digits.target[:512]))
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)
    torch.manual_seed(0)
    watch, (end, build) = Watch(), NETWORKS[network]
    Runner(Classifier(build()), str(tmp_path), DataLoader(data, 32, shuffle=True),
           train_cfg=dict(by_epoch=False, max_iters=ITERATIONS), optim_wrapper=dict(optimizer=dict(
               type='AdamW', lr=.01)), custom_hooks=[
                   dict(type='TemperatureAnnealingHook', start=1., end=end, iters=ITERATIONS // 2), watch],
           experiment_name=f'{tmp_path.name}-{network}', log_level='ERROR', randomness=dict(seed=0)).train()
    expected = [max(end, 1 - (1 - end) * (step + 1) / 30) for step in range(ITERATIONS)]
    assert watch.temperatures == pytest.approx(expected)
    first, last = (sum(part) / 10 for part in (watch.losses[:10], watch.losses[-10:]))
    assert last < .8 * first

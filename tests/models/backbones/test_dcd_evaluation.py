"""A DCD network that is evaluated before its batch norms have statistics: NaN, as of the released code, and what helps.

The released ResNet-18 is written out here in plain torch, with its names.
"""
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.models import DCDResNet


def hard_sigmoid(z: Tensor) -> Tensor:
    return (z + 3).clamp(0, 6) / 3


class Gate(nn.Module):

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, channels, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        return z * hard_sigmoid(self.fc(z))


class PlainDCD(nn.Module):
    """y = Λ·(W₀ * x) + P v, v = BN(Φ u) + u, u = BN(Qᵀx)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        features = 4 * in_channels
        self.rank = int(features**.5)
        hidden = max(max(features, self.rank**2) // 16, 4)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.q = nn.Conv2d(in_channels, self.rank, 1, stride, bias=False)
        self.p = nn.Conv2d(self.rank, out_channels, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm1d(self.rank), nn.BatchNorm1d(self.rank)
        self.fc = nn.Sequential(nn.Linear(features, hidden, bias=False), Gate(hidden))
        self.fc_phi = nn.Linear(hidden, self.rank**2, bias=False)
        self.fc_scale = nn.Linear(hidden, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))
        phi = self.fc_phi(hidden).reshape(-1, self.rank, self.rank)
        static = self.conv(x)
        u = self.bn1(self.q(x).flatten(2))
        v = self.bn2(phi @ u) + u
        scale = hard_sigmoid(self.fc_scale(hidden))[:, :, None, None]
        return scale * static + self.p(v.reshape(len(x), self.rank, *static.shape[2:]))


class PlainBlock(nn.Module):

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = PlainDCD(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels)
        self.conv2, self.bn2 = PlainDCD(out_channels, out_channels, 1), nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                                            nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class PlainResNet18(nn.Module):

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)
        for stage in range(4):
            width = channels << stage
            first = PlainBlock(width >> bool(stage), width, 2 if stage else 1)
            self.add_module(f'layer{stage + 1}', nn.Sequential(first, PlainBlock(width, width, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))),


def make_pair() -> tuple[DCDResNet, PlainResNet18]:
    ours = DCDResNet(depth=18, stem_channels=16, base_channels=16).double()
    plain = PlainResNet18(16).double()
    plain.load_state_dict({name: value.reshape(plain.state_dict()[name].shape)
                           for name, value in ours.state_dict().items()})
    return ours, plain


def evaluate(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(images)[0]


def train(model: nn.Module, batches: Tensor, lr: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=.9)
    model.train()
    for images in batches:
        optimizer.zero_grad()
        model(images)[0].square().mean().backward()
        optimizer.step()


@pytest.mark.first_is_quick('lr')
@pytest.mark.parametrize(('lr', 'settles'), [(1e-3, True), (.05, False)])
def test_as_the_released_structure(lr, settles):
    """The same weights and batches give the same: NaN at first, and until the statistics follow the weights."""
    ours, plain = make_pair()
    finite = []
    for count in (1, 2, 4, 16, 0):
        batches = torch.randn(count, 8, 3, 64, 64, dtype=torch.float64)
        images = torch.randn(8, 3, 64, 64, dtype=torch.float64)
        found, expected = evaluate(ours, images), evaluate(plain, images)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
        finite.append(bool(expected.isfinite().all()))
        train(ours, batches, lr)
        train(plain, batches, lr)
    assert (finite[0], finite[-1]) == (False, settles)


class Images(torch.utils.data.Dataset):
    """Random ones, of random classes."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (32, 3, 64, 64), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(3, (32, ), generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        from mmpretrain.structures import DataSample
        return dict(inputs=self.images[index], data_samples=DataSample().set_gt_label(self.labels[index]))


@pytest.mark.parametrize('settled', [False, True])
def test_with_settled_statistics(settled, tmp_path):
    """mmpretrain's PreciseBNHook, as the page of the configs says: an evaluation after four iterations is finite."""
    pytest.importorskip('mmpretrain')
    from mmengine.dataset import pseudo_collate
    from mmengine.hooks import Hook
    from mmengine.runner import Runner
    scores = []

    class Look(Hook):

        def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            scores.extend(sample.pred_score for sample in outputs)

    def loader(shuffle: bool) -> dict:
        return dict(dataset=Images(), batch_size=8, sampler=dict(type='DefaultSampler', shuffle=shuffle),
                    num_workers=0, collate_fn=pseudo_collate)

    runner = Runner(
        model=dict(type='ImageClassifier', backbone=dict(type='DCDResNet', depth=18, base_channels=16),
                   neck=dict(type='GlobalAveragePooling'),
                   head=dict(type='DCDLinearClsHead', num_classes=3, in_channels=128,
                             loss=dict(type='CrossEntropyLoss')),
                   data_preprocessor=dict(num_classes=3, mean=[127.5] * 3, std=[60.] * 3)),
        work_dir=str(tmp_path), train_dataloader=loader(True), val_dataloader=loader(False),
        train_cfg=dict(by_epoch=True, max_epochs=1), val_cfg=dict(),
        val_evaluator=dict(type='mmpretrain.Accuracy'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.05, momentum=.9)), default_scope='mmpretrain',
        custom_hooks=[dict(type='mmpretrain.PreciseBNHook', num_samples=32, priority='ABOVE_NORMAL')] * settled,
        default_hooks=dict(checkpoint=None, logger=None), log_level='ERROR', experiment_name=f'settled_{settled}')
    runner.register_hook(Look())
    runner.train()
    assert len(scores) == 32 and bool(torch.stack(scores).isfinite().all()) == settled

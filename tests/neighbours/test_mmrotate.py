"""A detector of mmrotate trains and predicts on a dynamic backbone."""
from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from dynconv_mm import ODConv2d

pytest.importorskip('mmrotate', reason='needs mmrotate, tested with onedl-mmrotate 1.2.1 on onedl-mmdetection: pip '
                    'install onedl-mmrotate')


def make_batch(size: int) -> dict[str, list]:
    """Images of noise with a rotated box each."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from mmrotate.structures import RotatedBoxes

    def sample() -> DetDataSample:
        sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64),
                                             batch_input_shape=(64, 64), scale_factor=(1., 1.), img_id=0))
        sample.gt_instances = InstanceData(bboxes=RotatedBoxes(torch.tensor([[30., 30., 20., 10., .3]])),
                                           labels=torch.tensor([1]))
        sample.ignored_instances = InstanceData(bboxes=RotatedBoxes(torch.zeros(0, 5)),
                                                labels=torch.zeros(0, dtype=torch.long))
        return sample

    images: list[Tensor] = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(size)]
    return dict(inputs=images, data_samples=[sample() for _ in images])


def test_training_and_prediction(root):
    config = Config.fromfile(next((root / 'examples' / 'mmrotate').glob('*.py')))
    init_default_scope('mmrotate')
    config.model.backbone.update(stem_channels=8, base_channels=8)
    config.model.neck.in_channels = [32, 64, 128, 256]
    model = MODELS.build(config.model)
    model.init_weights()
    assert sum(isinstance(module, ODConv2d) for module in model.modules()) == 48
    losses = model.train()(**model.data_preprocessor(make_batch(2), training=True), mode='loss')
    sum(sum(values) for name, values in losses.items() if 'loss' in name).backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    with torch.no_grad():
        predicted = model.eval()(**model.data_preprocessor(make_batch(1)), mode='predict')
    assert predicted[0].pred_instances.bboxes.shape[1] == 5

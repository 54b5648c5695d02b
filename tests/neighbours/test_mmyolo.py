"""A YOLO of mmyolo trains and predicts with a dynamic backbone."""
from __future__ import annotations

import importlib.util

import mmcv
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dynconv_mm import ODConv2d

SHAPES = dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64),
              scale_factor=(1., 1.), img_id=0)


@pytest.fixture
def config(root, monkeypatch) -> Config:
    if importlib.util.find_spec('mmyolo') is None:
        pytest.skip('needs mmyolo, tested with 0.6.0: pip install mmyolo')
    with monkeypatch.context() as patch:
        patch.setattr(mmcv, '__version__', '2.0.1')  # mmyolo asks for one before 2.1, which differs in nothing it uses
        import mmyolo  # noqa: F401
    config = Config.fromfile(next((root / 'examples' / 'mmyolo').glob('*.py')))
    from mmyolo.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    init_default_scope('mmyolo')
    for part in (config.model.backbone, config.model.neck, config.model.bbox_head.head_module):
        part.norm_cfg = dict(type='BN')  # in one process
    return config


def test_training_and_prediction(config):
    from mmdet.structures import DetDataSample
    model = MODELS.build(config.model)
    model.init_weights()
    assert sum(isinstance(module, ODConv2d) for module in model.backbone.modules()) == 16
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    boxes = torch.tensor([[0, 1., 10, 10, 30, 30], [1, 2., 5, 5, 40, 50]])  # image, class, corners
    data = model.data_preprocessor(dict(inputs=images, data_samples=dict(
        bboxes_labels=boxes, img_metas=[SHAPES] * 2)), training=True)
    losses = model.train()(**data, mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    with torch.no_grad():
        predicted = model.eval().test_step(dict(inputs=[images[0]], data_samples=[DetDataSample(metainfo=SHAPES)]))
    assert predicted[0].pred_instances.bboxes.shape[1] == 4

"""An estimator of mmpose keeps its function, trains and predicts with dynamic convolutions."""
from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from dynconv_mm import ODConv2d, dynamicize

pytest.importorskip('mmpose.models', reason='needs mmpose, tested with 1.3.2: pip install mmpose', exc_type=ImportError)


@pytest.fixture
def config(root) -> Config:
    config = Config.fromfile(next((root / 'examples' / 'mmpose').glob('*.py')))
    init_default_scope('mmpose')
    config.model.backbone.update(stem_channels=8, base_channels=8, init_cfg=None)
    config.model.head.update(in_channels=256, deconv_out_channels=(8, 8, 8))
    return config


def test_training_and_prediction(config):
    from mmpose.testing import get_packed_inputs
    model = MODELS.build(config.model)
    model.init_weights()
    assert sum(isinstance(module, ODConv2d) for module in model.backbone.modules()) == 16
    data = model.data_preprocessor(get_packed_inputs(2, img_shape=(256, 192), input_size=(192, 256),
                                                     heatmap_size=(48, 64)), training=True)
    losses = model.train()(**data, mode='loss')
    losses['loss_kpt'].backward()
    assert all(parameter.grad is not None for parameter in model.backbone.layer4.parameters())
    with torch.no_grad():
        predicted = model.eval()(**data, mode='predict')
    assert predicted[0].pred_instances.keypoints.shape == (1, 17, 2)


@torch.no_grad()
def test_a_whole_estimator(config):
    """Its ``switch_to_deploy`` only hands on."""
    config.model.backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
    config.model.head.update(in_channels=64)
    model, x = MODELS.build(config.model).eval(), torch.randn(1, 3, 64, 64)
    expected = model(x, None, mode='tensor')
    report = dynamicize(model)
    assert not any('switch_to_deploy' in reason for reason in report.kept.values())
    torch.testing.assert_close(model(x, None, mode='tensor'), expected, rtol=1e-3, atol=1e-5)

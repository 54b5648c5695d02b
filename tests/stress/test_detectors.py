"""Detectors learn from images without objects, from boxes of a pixel and from crowded images, and look at tiny ones."""
from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

pytest.importorskip('mmdet')

CONFIGS = ['faster-rcnn_odconv1x-r18-thin_fpn_digits', 'retinanet_dcdc-r26-thin_dcdc-fpn_digits',
           'mask-rcnn_dcdc-r26-thin_dcdc-fpn_digits', 'htc_dcdc-r26-thin_dcdc-fpn_digits',
           'panoptic-fpn_dcdc-r26-thin_dcdc-fpn_digits']
HEIGHT, WIDTH = 64, 96
# boxes (left, top, right, bottom) of each of two images
PIXEL, ALL = (50, 20, 51, 21), (0, 0, WIDTH, HEIGHT)
CASES = {
    'no objects': ([], []),
    'one image without objects': ([(10, 10, 40, 40)], []),
    'boxes of one pixel': ([PIXEL], [PIXEL, (0, 0, 1, 1), (WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT)]),
    'the whole image': ([ALL], [ALL, ALL]),
    'a crowd': ([(i % 60, i % 40, i % 60 + 8, i % 40 + 9) for i in range(150)], [PIXEL]),
}


@pytest.fixture(scope='module', params=CONFIGS)
def cfg(request, root) -> Config:
    return Config.fromfile(root / f'configs/demo/{request.param}.py')


@pytest.fixture
def model(cfg):
    """A detector; the modules of mmdet are found."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def sample(boxes: list[tuple[int, ...]], size: tuple[int, int] = (HEIGHT, WIDTH)):
    """Annotations of an image, a digit of each kind in turn."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    metainfo = dict(img_shape=size, ori_shape=size, scale_factor=(1., 1.), pad_shape=size, img_id=0)
    return DetDataSample(
        metainfo=metainfo,
        gt_instances=InstanceData(bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
                                  labels=torch.arange(len(boxes)) % 10, masks=BitmapMasks(masks.numpy(), *size)),
        gt_sem_seg=PixelData(sem_seg=torch.full((1, *size), 10, dtype=torch.uint8)))


@pytest.mark.one_at_a_time('cfg', 'case')
@pytest.mark.parametrize('case', CASES)
def test_training(model, count, case):
    model.train()
    images = [torch.randint(0, 255, (3, HEIGHT, WIDTH), dtype=torch.uint8) for _ in range(2)]
    batch = dict(inputs=images, data_samples=[sample(boxes) for boxes in CASES[case]])
    count('steps of detectors on odd annotations')
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    loss, log = model.parse_losses(losses)
    assert all(value.isfinite().all() for value in log.values()), log
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.backbone.parameters())


@pytest.mark.parametrize('size', [(1, 1), (200, 3)], ids=str)
def test_tiny_images(model, count, size):
    model.eval()
    batch = dict(inputs=[torch.randint(0, 255, (3, *size), dtype=torch.uint8)], data_samples=[sample([], size)])
    count('predictions on images of a few pixels')
    with torch.no_grad():
        prediction, = model(**model.data_preprocessor(batch, False), mode='predict')
    if 'pred_panoptic_seg' in prediction:
        assert prediction.pred_panoptic_seg.sem_seg.shape == (1, *size)
    else:
        boxes = prediction.pred_instances.bboxes
        assert boxes.isfinite().all() and (boxes >= 0).all()

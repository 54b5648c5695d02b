"""Small networks of many families compute the same when their convolutions become dynamic, and train."""
from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, MODELS, DefaultScope, init_default_scope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm import ODConv2d, dynamicize

HRNET_STAGES = {  # modules, branches, kind, blocks and channels of the branches
    'stage1': (1, 1, 'BOTTLENECK', (1, ), (8, )),
    'stage2': (1, 2, 'BASIC', (1, 1), (8, 16)),
    'stage3': (1, 3, 'BASIC', (1, 1, 1), (8, 16, 24)),
    'stage4': (1, 4, 'BASIC', (1, 1, 1, 1), (8, 16, 24, 32)),
}
HRNET = {stage: dict(zip(('num_modules', 'num_branches', 'block', 'num_blocks', 'num_channels'), values))
         for stage, values in HRNET_STAGES.items()}
# backbone, channels of its last map, convolutions that become dynamic, and reasons of those that do not
STEM = 'sees the image (3 input channels)'
CLASSIFIERS = {
    'ConvNeXt': (dict(type='ConvNeXt', arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32]),
                      linear_pw_conv=False), 32, 18, {STEM}),
    'EfficientNet': (dict(type='EfficientNet', arch='b0'), 1280, 76, {
        STEM, 'pads by the size of its input (Conv2dAdaptivePadding with a stride)'}),
    'HRNet': (dict(type='HRNet', arch='w18', extra=HRNET), 2048, 72, {STEM}),
    'MobileNetV3': (dict(type='MobileNetV3', arch='small_050'), 288, 51, {STEM}),
    'ResNeXt': (dict(type='ResNeXt', depth=50, groups=4, width_per_group=4, base_channels=16, stem_channels=16), 512,
                52, {STEM}),
    'ShuffleNetV2': (dict(type='ShuffleNetV2', widen_factor=0.5), 1024, 55, {STEM}),
}
# config, changes, arguments of dynamicize, convolutions that become dynamic, and reasons of those that do not
THIN_NECK = dict(in_channels=[32, 64, 128], out_channels=32)
THIN_HEAD = dict(in_channels=32, feat_channels=32, num_classes=10)
THIN_RESNET = dict(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
DETECTORS = {
    'YOLOX': ('yolox/yolox_tiny_8xb8-300e_coco.py', dict(
        backbone=dict(widen_factor=0.125), neck=THIN_NECK, bbox_head=THIN_HEAD,
        data_preprocessor=dict(batch_augments=None)), dict(exclude='backbone.stem'), 82, {'is in exclude'}),
    'RTMDet': ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', dict(
        backbone=dict(widen_factor=0.125, init_cfg=None), neck=THIN_NECK, bbox_head=THIN_HEAD,
        data_preprocessor=dict(batch_augments=None)), {}, 77, {STEM}),
    'RetinaNet': ('retinanet/retinanet_r18_fpn_1x_coco.py', dict(
        backbone=THIN_RESNET, neck=dict(in_channels=[8, 16, 32, 64], out_channels=32),
        bbox_head=dict(THIN_HEAD, stacked_convs=1)), dict(include=['neck', 'bbox_head']), 12, {'is not in include'}),
}


@pytest.fixture(scope='module', autouse=True)
def quick():
    """Single threads, and no list of how each parameter was initialised."""
    threads, level = torch.get_num_threads(), MMLogger.get_current_instance().level
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel('ERROR')
    yield
    torch.set_num_threads(threads)
    MMLogger.get_current_instance().setLevel(level)


def build_model(cfg: dict) -> nn.Module:
    """With norms that are not fresh, which could hide an error."""
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def flat(outputs: object) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [x for part in outputs for x in flat(part)]


def assert_same_function(model: nn.Module, image: Tensor, arguments: dict, replaced: int, reasons: set[str]) -> None:
    model.eval()
    forward = partial(model, image, None, mode='tensor')
    with torch.no_grad():
        expected = flat(forward())
        report = dynamicize(model, dict(type='ODConv2d', kernel_num=2), **arguments)
        assert len(report.replaced) == replaced
        assert set(report.kept.values()) == reasons
        layers = [module for module in model.modules() if isinstance(module, ODConv2d)]
        assert len(layers) == replaced
        for temperature in (30., 1.):
            for layer in layers:
                layer.set_temperature(temperature)
            for ours, theirs in zip(flat(forward()), expected):
                assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def assert_trains(model: nn.Module, batches: list, idle: str | None = None, steps: int = 3) -> None:
    """All dynamic layers, but that named ``idle``, of a level on which there is no object."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        data = model.data_preprocessor(batches[step % len(batches)], training=True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    dead = [name for name, module in model.named_modules() if isinstance(module, ODConv2d)
            for parameter in module.parameters() if parameter.grad is None or not parameter.grad.isfinite().all()]
    assert not dead
    still = [name for name, module in model.named_modules() if isinstance(module, ODConv2d)
             if name != idle
             and not (module.attention.fc.weight.grad.any() and module.attention.channel_fc.weight.grad.any())]
    assert not still


@pytest.fixture(scope='module')
def digit_images() -> list[dict]:
    """scikit-learn's digits, 32 × 32, as batches of an ImageClassifier."""
    structures = pytest.importorskip('mmpretrain.structures')
    digits = pytest.importorskip('sklearn.datasets').load_digits()
    images = torch.from_numpy(digits.images[:16]).float()[:, None].expand(-1, 3, -1, -1)
    images = nn.functional.interpolate(images * 16, size=(32, 32), mode='bilinear')
    samples = [structures.DataSample().set_gt_label(int(label)) for label in digits.target[:16]]
    return [dict(inputs=list(images[part]), data_samples=samples[part]) for part in (slice(0, 8), slice(8, 16))]


@pytest.mark.parametrize('family', CLASSIFIERS)
def test_classifier(family, digit_images):
    pytest.importorskip('mmpretrain.models')
    backbone, channels, replaced, reasons = CLASSIFIERS[family]
    init_default_scope('mmpretrain')
    neck = {
        'ConvNeXt': None,  # it averages by itself
        'HRNet': [dict(type='HRFuseScales', in_channels=(8, 16, 24, 32)), dict(type='GlobalAveragePooling')],
    }.get(family, dict(type='GlobalAveragePooling'))
    model = build_model(dict(
        type='ImageClassifier', backbone=backbone, neck=neck,
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[128] * 3, std=[64] * 3, num_classes=10),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=channels, loss=dict(type='CrossEntropyLoss'))))
    assert_same_function(model, torch.randn(2, 3, 64, 96), {}, replaced, reasons)
    assert_trains(model, digit_images)


@pytest.fixture(scope='module')
def digit_scenes(digits, root) -> list[dict]:
    """The demo's digits, as batches of a detector."""
    pytest.importorskip('mmdet.datasets')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())
        init_default_scope('mmdet')
        cfg = Config.fromfile(root / 'configs' / '_base_' / 'digits_detection.py').train_dataloader.dataset
        cfg.data_root = f'{digits}/'
        dataset = DATASETS.build(cfg)
        return [pseudo_collate([dataset[i] for i in part]) for part in ((0, 1), (2, 3))]


def detector_config(name: str, changes: dict) -> Config:
    mmdet = pytest.importorskip('mmdet')
    cfg = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / name)
    cfg.merge_from_dict(dict(model=changes))
    return cfg


@pytest.mark.parametrize('family', DETECTORS)
def test_detector(family, digit_scenes):
    pytest.importorskip('mmdet.models')
    name, changes, arguments, replaced, reasons = DETECTORS[family]
    init_default_scope('mmdet')
    model = build_model(detector_config(name, changes).model)
    assert_same_function(model, torch.randn(2, 3, 96, 128), arguments, replaced, reasons)
    assert_trains(model, digit_scenes, idle='bbox_head.rtm_reg.2' if family == 'RTMDet' else None)


def test_ssd_backbone():
    """Of the original widths, which it has only; without training."""
    pytest.importorskip('mmdet.models')
    init_default_scope('mmdet')
    model = MODELS.build(dict(type='SSDVGG', depth=16, with_last_pool=False, ceil_mode=True, out_indices=(3, 4),
                              out_feature_indices=(22, 34)))
    model.eval()
    image = torch.randn(1, 3, 40, 33)
    with torch.no_grad():
        expected = model(image)
        report = dynamicize(model, dict(type='ODConv2d', kernel_num=1))
        assert len(report.replaced) == 14 and report.kept == {'features.0': STEM}
        for ours, theirs in zip(model(image), expected):
            assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_weights_that_others_read():
    """TOOD's task decomposition makes kernels of a convolution's weight."""
    pytest.importorskip('mmdet.models')
    init_default_scope('mmdet')
    model = build_model(detector_config('tood/tood_r50_fpn_1x_coco.py', dict(
        backbone=THIN_RESNET, neck=dict(in_channels=[8, 16, 32, 64], out_channels=32),
        bbox_head=dict(THIN_HEAD, stacked_convs=2))).model)
    assert_same_function(model, torch.randn(2, 3, 64, 64), dict(include='bbox_head'), 8,
                         {'is not in include', 'has its weight read by TaskDecomposition'})


def test_blocks_that_are_merged_later():
    pytest.importorskip('mmpretrain.models')
    init_default_scope('mmpretrain')
    model = MODELS.build(dict(type='RepVGG', arch='A0', base_channels=8))
    with pytest.raises(ValueError, match='read by RepVGGBlock.switch_to_deploy'):
        dynamicize(model)

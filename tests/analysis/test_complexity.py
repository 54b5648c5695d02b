"""Parameters and multiply-adds of whole models: against their static counterparts, mmengine's count and mmdet's way."""
from __future__ import annotations

import functools

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from model_state import model_state
from torch import nn

from dynconv_mm.analysis import count_madds, measure_complexity
from dynconv_mm.analysis.complexity import build_on_meta, dynamic_params
from dynconv_mm.analysis.multiply_adds import KINDS
from dynconv_mm.models import (
    CGCResNet,
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    FDConvResNet,
    KWResNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
    WeightNetResNet,
    WEResNet,
)
from dynconv_mm.models.backbones import MobileNetV2, ResNet


def on_meta(network: type[nn.Module], **kwargs) -> nn.Module:
    with torch.device('meta'):
        return network(**kwargs)


def params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(('dynamic', 'static', 'kwargs'), [
    (ODConvResNet, ResNet, dict(depth=18)), (DyConvResNet, ResNet, dict(depth=18)),
    (CondConvResNet, ResNet, dict(depth=50)), (DCDResNet, ResNet, dict(depth=18)),
    (ODConvMobileNetV2, MobileNetV2, dict(widen_factor=0.5)), (DyConvMobileNetV2, MobileNetV2, dict(widen_factor=0.5)),
    (KWResNet, ResNet, dict(depth=18)), (FDConvResNet, ResNet, dict(depth=18)), (CGCResNet, ResNet, dict(depth=18)),
    (WeightNetResNet, ResNet, dict(depth=50)), (WEResNet, ResNet, dict(depth=50)),
    (CondConvMobileNetV2, MobileNetV2, dict(widen_factor=0.5)), (DCDMobileNetV2, MobileNetV2, dict(widen_factor=0.5)),
], ids=lambda value: getattr(value, '__name__', ''))
def test_dynamic_parameters_are_those_beyond_the_static_network(dynamic, static, kwargs):
    model = on_meta(dynamic, **kwargs)
    assert dynamic_params(model) == params(model) - params(on_meta(static, **kwargs)) > 0


def test_dynamic_parameters_of_few_cells_are_less_than_none():
    model = on_meta(KWResNet, depth=18, cell_num_ratio=1 / 4, cell_in_ratio=1 / 2, cell_out_ratio=1 / 2)
    assert dynamic_params(model) == params(model) - params(on_meta(ResNet, depth=18)) < 0


def test_dynamic_parameters_of_involutions_are_all_of_theirs():
    model = on_meta(RedNet, depth=26)
    own = [module for module in model.modules() if type(module).__name__ == 'Involution2d']
    assert dynamic_params(model) == sum(map(params, own)) > 0
    assert dynamic_params(on_meta(ResNet, depth=18)) == 0


@pytest.mark.parametrize('head, static', [('DCDLinearClsHead', 64 * 10 + 10), ('CondConvLinearClsHead', 64 * 10 + 10)])
def test_dynamic_parameters_of_classifiers(head, static):
    pytest.importorskip('mmpretrain')
    import dynconv_mm  # noqa: F401
    model = MODELS.build(dict(type=head, num_classes=10, in_channels=64))
    assert dynamic_params(model) == params(model) - static > 0


@pytest.mark.parametrize(('network', 'kwargs'), [
    (ODConvResNet, dict(depth=18, kernel_num=2)), (DyConvMobileNetV2, dict(widen_factor=0.35)),
    (CondConvResNet, dict(depth=50)), (DCDResNet, dict(depth=50)), (RedNet, dict(depth=26)),
    (DCDCResNet, dict(depth=26)), (ResNet, dict(depth=18)), (KWResNet, dict(depth=18)), (FDConvResNet, dict(depth=18)),
], ids=lambda value: getattr(value, '__name__', ''))
def test_shapes_that_stand_for_layers_count_as_the_layers(network, kwargs):
    """At an odd size; count_madds() executes everything."""
    model = on_meta(network, **kwargs)
    found = measure_complexity(model, (75, 97))
    assert found.total_madds == count_madds(model, (75, 97)) > 0
    assert found.params == found.trainable == params(model)
    assert set(found.madds) == set(KINDS) and found.not_run == [] and found.backbone is None
    assert not any('forward' in vars(module) for module in model.modules())


def conv_and_linear(model: nn.Module, *inputs: torch.Tensor) -> int:
    """What mmengine counts of convolutions and FCs."""
    from mmengine.analysis import FlopAnalyzer
    found = FlopAnalyzer(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return sum(found[name] for name in ('conv', 'linear', 'addmm'))


@pytest.mark.parametrize(('network', 'kwargs'), [(ResNet, dict(depth=50, base_channels=16)),
                                                 (MobileNetV2, dict(widen_factor=0.5))])
def test_static_networks_are_counted_as_mmengine_counts(network, kwargs):
    model = network(**kwargs).eval()
    assert measure_complexity(model, (64, 96)).total_madds == conv_and_linear(model, torch.zeros(1, 3, 64, 96))


def thin(config: str) -> Config:
    """A detector of mmdet, with few channels."""
    cfg = Config.fromstring(f"_base_ = 'mmdet::{config}'", '.py')
    cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    for head in ('rpn_head', 'bbox_head'):
        if head in cfg.model:
            cfg.model[head].update(in_channels=16, feat_channels=16)
    if 'roi_head' in cfg.model:
        for extractor in ('bbox_roi_extractor', 'mask_roi_extractor'):
            if extractor in cfg.model.roi_head:
                cfg.model.roi_head[extractor].out_channels = 16
        cfg.model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32)
        if 'mask_head' in cfg.model.roi_head:
            cfg.model.roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    return cfg


@pytest.mark.parametrize('config', ['retinanet/retinanet_r50_fpn_1x_coco.py',
                                    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
                                    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'])
def test_static_detectors_are_counted_as_mmdets_tool_counts(config):
    """tools/analysis_tools/get_flops.py traces the model in tensor mode with mmengine, with the proposals that it
    finds; with as many, the counts of convolutions and FCs are equal."""
    structures = pytest.importorskip('mmdet.structures')
    from mmengine.registry import init_default_scope
    torch.manual_seed(0)
    cfg = thin(config)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).eval()
    sizes = dict.fromkeys(('img_shape', 'pad_shape', 'ori_shape', 'batch_input_shape'), (128, 160))
    sample = structures.DetDataSample(metainfo=dict(sizes, scale_factor=(1., 1.)))
    forward, found = model.forward, []
    model.forward = functools.partial(forward, data_samples=[sample])
    if 'roi_head' in cfg.model:
        model.roi_head.bbox_head.register_forward_pre_hook(lambda head, args: found.append(len(args[0])))
    theirs = conv_and_linear(model, torch.rand(1, 3, 128, 160))
    model.forward = forward
    if found:
        assert found[0] > 100
        model.test_cfg['rpn']['max_per_img'] = found[0]
    assert measure_complexity(model, (128, 160)).total_madds == theirs


@pytest.mark.parametrize(('config', 'billions'), [  # mmdet's own figures, which have norms and activations in them
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 239.32),
    ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 207.07),
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 260.14), ('mmdet::htc/htc_r50_fpn_1x_coco.py', 441.4),
])
def test_mmdets_figures(config, billions):
    pytest.importorskip('mmdet')
    found = measure_complexity(build_on_meta(Config.fromstring(f'_base_ = {config!r}', '.py')))
    assert found.size == (800, 1280)
    assert found.total_madds / 1e9 == pytest.approx(billions, rel=0.005)
    assert found.proposals == (None if 'retinanet' in config else 1000)
    assert found.detections == (100 if 'mask' in config or 'htc' in config else None)
    assert found.not_run == []
    assert found.backbone == 23_508_032 and found.params - found.trainable == 225_344  # stem, first stage


@pytest.mark.parametrize('config', ['cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
                                    'groie/faste-rcnn_r50_fpn_groie_1x_coco.py',
                                    'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
                                    'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py'])
def test_other_detectors_run_whole(config):
    pytest.importorskip('mmdet')
    found = measure_complexity(build_on_meta(Config.fromstring(f"_base_ = 'mmdet::{config}'", '.py')), (96, 128))
    assert found.not_run == [] and found.total_madds > 1e9


def test_layers_that_inference_does_not_run_are_named():

    class Model(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv, self.auxiliary = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.conv(x)

    found = measure_complexity(Model(), (32, 40))
    assert found.not_run == ['auxiliary'] and found.total_madds == 12 * 32 * 40 and found.params == 16 + 10


def test_the_size_is_padded_as_the_preprocessor_pads():
    assert measure_complexity(nn.Sequential(nn.Conv2d(3, 4, 1)), (33, 50)).size == (33, 50)
    preprocessor = nn.Identity()
    preprocessor.pad_size_divisor = 32

    class Detector(nn.Module):

        def __init__(self):
            super().__init__()
            self.data_preprocessor, self.conv = preprocessor, nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x)

    found = measure_complexity(Detector(), (33, 64))
    assert found.size == (64, 64) and found.total_madds == 12 * 64 * 64


@pytest.mark.parametrize('size', [(31, 224), (224, 0), (224, ), (224., 224), (True, 224)], ids=str)
def test_bad_size(size):
    with pytest.raises(ValueError, match='size must be height and width, ints of at least 32'):
        measure_complexity(nn.Conv2d(3, 4, 1), size)


def test_mmpretrains_resnet():
    """Which reads the values of a linspace while it is built. Its metafile: 25.56M parameters."""
    pytest.importorskip('mmpretrain')
    model = build_on_meta(Config.fromstring("_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'", '.py'))
    assert params(model) == 25_557_032


def test_models_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r'Linear cannot be counted with an image of 64 × 64 alone: RuntimeError'):
        measure_complexity(nn.Linear(7, 4), (64, 64))
    with pytest.raises(ValueError, match='multiply-adds of MultiheadAttention are not known'):
        measure_complexity(nn.MultiheadAttention(8, 2))
    with pytest.raises(ValueError, match='describes no model'):
        build_on_meta(Config(dict(optimizer=1)))


def test_the_model_stays_as_it_is():
    """With a forward of a norm's own, and where the model cannot be counted, too."""
    model = ODConvResNet(depth=18, stem_channels=4, base_channels=4)
    model.layer1.eval()
    patched = model.layer2[0].bn1
    patched.forward = lambda x: x
    before = model_state(model)
    measure_complexity(model, (64, 64))
    assert model_state(model) == before
    failure = model.layer4.register_forward_pre_hook(lambda *call: {}['none'])
    with pytest.raises(ValueError, match='KeyError'):
        measure_complexity(model, (64, 64))
    failure.remove()
    assert model_state(model) == before

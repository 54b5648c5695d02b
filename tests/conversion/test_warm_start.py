"""A dynamic network that starts from a static checkpoint computes what that network does, whoever made it."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from model_state import model_state
from torch import Tensor, nn

from dynconv_mm.conversion import CheckpointError, max_difference, static_layer, warm_start
from dynconv_mm.conversion.static_names import openmmlab_names
from dynconv_mm.layers.temperature import TemperatureMixin
from dynconv_mm.models.backbones import MobileNetV2, ODConvResNet, RedNet, ResNet

pytest.importorskip('mmpretrain')

METHODS = {
    'ODConv1x': (dict(kernel_num=1), 'LinearClsHead'),
    'ODConv4x': (dict(kernel_num=4), 'LinearClsHead'),
    'DyConv': (dict(kernel_num=4), 'LinearClsHead'),
    'CondConv': (dict(kernel_num=3), 'CondConvLinearClsHead'),
    'DCD': ({}, 'DCDLinearClsHead'),
}
# mmpretrain's backbone, its arguments, and the size of the images
NETWORKS = {
    'resnet18': ('ResNet', dict(depth=18), 512, 96),
    'resnet50': ('ResNet', dict(depth=50), 2048, 64),
    'mobilenet-v2': ('MobileNetV2', {}, 1280, 96),
}


def randomize(model: nn.Module) -> nn.Module:
    """Norms as after a training, so that none can be left out or mixed up unnoticed."""
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if value.dim() == 1 and value.is_floating_point():
            if name.endswith(('weight', 'running_var')):
                nn.init.uniform_(value, .5, 1.5)
            else:
                nn.init.normal_(value, std=.1)
    return model


def make_classifier(backbone: dict, head: str, features: int, classes: int = 7) -> nn.Module:
    init_default_scope('mmpretrain')
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
                             head=dict(type=head, num_classes=classes, in_channels=features)))


def make_pair(network: str, method: str, **arguments) -> tuple[nn.Module, nn.Module]:
    """mmpretrain's static classifier with random weights, and a dynamic one; ``arguments`` are of both backbones."""
    kind, defaults, features, _ = NETWORKS[network]
    (own, head), arguments = METHODS[method], {**defaults, **arguments}
    static = make_classifier(dict(type=kind, **arguments), 'LinearClsHead', features)
    dynamic = make_classifier(dict(type=f'{method.rstrip("14x")}{kind}', **arguments, **own), head, features)
    return randomize(static).eval(), dynamic.eval()


@torch.no_grad()
def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def digest(names_and_shapes: Iterable[tuple[str, Iterable[int]]]) -> str:
    lines = sorted(f'{name}: {list(shape)}' for name, shape in names_and_shapes)
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


# mmpretrain's networks.


@pytest.mark.one_at_a_time('network', 'method')
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('network', NETWORKS)
def test_the_same_function(network, method):
    static, dynamic = make_pair(network, method)
    made = warm_start(dynamic, static.state_dict(), noise=.01)
    assert made.naming.startswith('model of OpenMMLab') and made.carried == ['backbone', 'head']
    assert not (made.left or made.unused or made.impossible or made.fresh)
    assert [(name, value.shape) for name, value in made.static.state_dict().items()] == \
        [(name, value.shape) for name, value in static.state_dict().items()]
    image = torch.randn(2, 3, NETWORKS[network][-1], 64)
    with torch.no_grad():
        expected = static(image, mode='tensor')
        for temperature in (1., 30.):
            for layer in dynamic.modules():
                if isinstance(layer, TemperatureMixin):
                    layer.set_temperature(temperature)
            assert relative_difference(dynamic(image, mode='tensor'), expected) <= 1e-5
        assert torch.equal(made.static.eval()(image, mode='tensor'), expected)
    assert max_difference(made.static, dynamic, image, with_head=True) <= 1e-5


def test_the_same_function_in_training():
    static, dynamic = make_pair('resnet18', 'ODConv4x')
    warm_start(dynamic, static.state_dict(), noise=.01)
    image = torch.randn(2, 3, 96, 96)
    assert relative_difference(dynamic.train()(image, mode='tensor'), static.train()(image, mode='tensor')) <= 1e-4


def test_max_difference_sees_one():
    static, dynamic = make_pair('resnet18', 'DCD')
    made = warm_start(dynamic, static.state_dict())
    image = torch.randn(2, 3, 64, 64)
    assert max_difference(made.static, dynamic, image, with_head=True) <= 1e-5
    for part in (dynamic.head.fc_scale, dynamic.backbone.layer1[0].conv2.fc_scale):
        nn.init.normal_(part.weight)
        assert max_difference(made.static, dynamic.train(), image, with_head=True) > 1e-3
        assert dynamic.training
        nn.init.zeros_(part.weight)


@torch.no_grad()
def test_max_difference_at_temperatures():
    """Attentions that are not neutral depend on the temperature, which is as before afterwards."""
    static, dynamic = make_pair('resnet18', 'DyConv')
    made = warm_start(dynamic, static.state_dict(), noise=.3)
    layer = dynamic.backbone.layer1[0].conv1
    layer.set_temperature(3.)
    layer.attention.fc2.bias.copy_(torch.tensor([9., 0., 0., 0.]))
    image = torch.randn(2, 3, 64, 64)
    cold, hot = (max_difference(made.static, dynamic, image, False, [temperature]) for temperature in (1., 1000.))
    assert cold > 10 * hot and layer.temperature == 3


def test_no_static_layer():
    with pytest.raises(ValueError, match='static counterpart.*ReLU'):
        static_layer(nn.ReLU())


# Names of other libraries.


@pytest.mark.parametrize(('name', 'backbone', 'features'), [
    ('resnet18', dict(type='ODConvResNet', depth=18, kernel_num=2), 512),
    ('resnet50', dict(type='ODConvResNet', depth=50, kernel_num=1), 2048),
    ('mobilenet_v2', dict(type='ODConvMobileNetV2', kernel_num=2), 1280),
    ('mobilenet_v2', dict(type='DCDMobileNetV2', widen_factor=1.4), 1792),
], ids=str)
def test_torchvision(name, backbone, features):
    width = {'width_mult': backbone['widen_factor']} if 'widen_factor' in backbone else {}
    static = randomize(getattr(torchvision.models, name)(num_classes=7, **width)).eval()
    dynamic = make_classifier(backbone, 'LinearClsHead', features).eval()
    made = warm_start(dynamic, static.state_dict())
    assert 'torchvision' in made.naming and made.carried == ['backbone', 'head'] and not made.unused
    image = torch.randn(2, 3, 64, 96)
    assert relative_difference(dynamic(image, mode='tensor'), static(image)) <= 1e-5


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_names_of_timm_resnets(root, depth):
    """They are torchvision's, as are ours."""
    with torch.device('meta'):
        weights = getattr(torchvision.models, f'resnet{depth}')().state_dict()
        ours = ResNet(depth=depth).state_dict()
    names = json.loads((root / 'tests/data/timm_names.json').read_text())
    assert digest((name, value.shape) for name, value in weights.items()) == names['sha256'][f'resnet{depth}']
    naming, renamed = openmmlab_names(weights)
    assert 'timm' in naming and renamed['head.fc.weight'].shape[0] == 1000
    assert {name: value.shape for name, value in renamed.items() if name.startswith('backbone.')} == \
        {f'backbone.{name}': value.shape for name, value in ours.items()}


@pytest.mark.parametrize('width', ['035', '050', '075', '100', '140'])
def test_names_of_timm_mobilenets(root, width):
    """Their modules stand in the order of ours; by name and shape they are those of timm's networks."""
    names = json.loads((root / 'tests/data/timm_names.json').read_text())
    with torch.device('meta'):
        backbone = MobileNetV2(widen_factor=int(width) / 100)
        ours = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
        ours.update({'head.fc.weight': torch.empty(1000, backbone.feat_dim), 'head.fc.bias': torch.empty(1000)})
    modules = dict(zip(dict.fromkeys(name.rpartition('.')[0] for name in ours), names['mobilenetv2'], strict=True))
    theirs = {f'{modules[name.rpartition(".")[0]]}.{name.rpartition(".")[2]}': name for name in ours}
    assert digest((name, ours[our_name].shape) for name, our_name in theirs.items()) == \
        names['sha256'][f'mobilenetv2_{width}']
    naming, renamed = openmmlab_names({name: ours[our_name] for name, our_name in theirs.items()})
    assert naming == 'MobileNetV2 of timm'
    assert {name: id(value) for name, value in renamed.items()} == {name: id(value) for name, value in ours.items()}


@pytest.mark.parametrize('network', ['resnet18', 'mobilenet-v2'])
def test_a_backbone_alone(network):
    static, dynamic = make_pair(network, 'ODConv1x')
    made = warm_start(dynamic, static.backbone.state_dict())
    assert 'OpenMMLab' in made.naming and made.carried == ['backbone']
    assert made.left == {'head': 'the checkpoint has none'}


def test_checkpoints_without_counts_of_batches():
    """Those from before torch 0.4.1 have none, such as torchvision's first ones."""
    static, dynamic = make_pair('resnet18', 'ODConv1x')
    weights = {name: value for name, value in static.state_dict().items() if 'num_batches_tracked' not in name}
    made = warm_start(dynamic, weights)
    assert not made.unused and dynamic.backbone.bn1.num_batches_tracked == 0
    assert max_difference(static, dynamic, torch.randn(1, 3, 64, 64), with_head=True) <= 1e-5


# What is carried of detectors.


@pytest.fixture
def detectors(root) -> tuple[nn.Module, nn.Module]:
    """A small static Faster R-CNN of mmdet with random weights, and the demo's, which is dynamic."""
    pytest.importorskip('mmdet')
    config = Config.fromfile(root / 'configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py')
    init_default_scope('mmdet')
    config.model.test_cfg.rcnn.score_thr = 0.
    dynamic = MODELS.build(config.model)
    config.model.backbone.type = 'ResNet'
    del config.model.backbone.kernel_num
    return randomize(MODELS.build(config.model)).eval(), dynamic.eval()


def detect(detector: nn.Module) -> Tensor:
    """Boxes and scores on a random image."""
    from mmdet.structures import DetDataSample
    sample = DetDataSample(metainfo=dict(img_shape=(128, 160), ori_shape=(128, 160), scale_factor=(1., 1.)))
    image = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = detector(image, [sample], mode='predict')[0].pred_instances
    return torch.cat([found.bboxes, found.scores[:, None]], 1)


def test_a_detector(detectors):
    static, dynamic = detectors
    made = warm_start(dynamic, static.state_dict(), noise=.01)
    assert made.carried == ['backbone', 'neck', 'rpn_head', 'roi_head'] and not (made.left or made.unused)
    assert max_difference(made.static, dynamic, torch.randn(1, 3, 64, 96), with_head=False) <= 1e-5
    expected = detect(static)
    assert len(expected) > 5
    torch.testing.assert_close(detect(dynamic), expected, rtol=1e-3, atol=1e-2)  # pixels


def test_parts_of_a_detector(detectors):
    static, dynamic = detectors
    before = state(dynamic)
    made = warm_start(dynamic, static.state_dict(), parts=['backbone', 'neck'])
    assert made.carried == ['backbone', 'neck']
    assert made.left == dict.fromkeys(['rpn_head', 'roi_head'], 'it was not asked for')
    assert {name.partition('.')[0] for name in made.unused} == {'rpn_head', 'roi_head'}
    for name, value in dynamic.state_dict().items():
        if name.startswith(('rpn_head', 'roi_head')):
            assert value.equal(before[name])
    assert max_difference(made.static, dynamic, torch.randn(1, 3, 64, 96), with_head=False) <= 1e-5


def test_a_classifier_for_a_detector(detectors):
    _, dynamic = detectors
    static = randomize(make_classifier(dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
                                       'LinearClsHead', 128))
    made = warm_start(dynamic, static.state_dict())
    assert made.carried == ['backbone'] and set(made.left) == {'neck', 'rpn_head', 'roi_head'}
    assert made.unused == ['head.fc.weight', 'head.fc.bias']


def test_a_head_that_misfits(detectors):
    """Of other classes, say; nothing has changed, and the remedy works."""
    static, dynamic = detectors
    before, weights = state(dynamic), static.state_dict()
    weights['roi_head.bbox_head.fc_cls.weight'] = torch.randn(81, 256)
    with pytest.raises(CheckpointError) as refused:
        warm_start(dynamic, weights)
    for words in ("the static roi_head of the model's kind", 'fc_cls.weight: [81, 256] instead of [11, 256]',
                  '--parts backbone'):
        assert words in str(refused.value)
    assert all(value.equal(before[name]) for name, value in dynamic.state_dict().items())
    warm_start(dynamic, weights, parts=['backbone', 'neck', 'rpn_head'])


# What does not fit.


def test_another_number_of_classes():
    static, dynamic = make_pair('resnet18', 'CondConv')
    other = make_classifier(dict(type='CondConvResNet', depth=18), 'CondConvLinearClsHead', 512, classes=5)
    before = state(other.head)
    made = warm_start(other, static.state_dict())
    assert made.carried == ['backbone'] and made.left == {'head': 'it has 5 classes, and that of the checkpoint 7'}
    assert all(value.equal(before[name]) for name, value in other.head.state_dict().items())
    assert max_difference(static, other, torch.randn(1, 3, 64, 64), with_head=False) <= 1e-5


def test_no_static_counterpart():
    """RedNet gets what it shares with ResNet, and a list of what it does not."""
    static, _ = make_pair('resnet50', 'ODConv1x')
    dynamic = make_classifier(dict(type='RedNet', depth=50), 'LinearClsHead', 2048)
    before = state(dynamic)
    made = warm_start(dynamic, static.state_dict())
    assert made.carried == ['backbone', 'head'] and len(made.impossible) == 17
    assert {'backbone.conv1.weight', 'backbone.layer1.0.conv2.weight'} <= set(made.unused)
    assert {'backbone.stem.0.conv.weight', 'backbone.layer4.2.conv2.conv1.conv.weight'} <= set(made.fresh)
    weights = static.state_dict()
    fresh, shared = set(made.fresh), weights.keys() - set(made.unused)
    assert fresh | shared == before.keys() and not fresh & shared
    for name, value in dynamic.state_dict().items():
        assert value.equal(before[name] if name in fresh else weights[name]), name


def test_dcdc_counts_once():
    dynamic = make_classifier(dict(type='DCDCResNet', depth=26), 'LinearClsHead', 2048)
    made = warm_start(dynamic, torchvision.models.resnet50(num_classes=3).state_dict())
    assert len(made.impossible) == 9 and {type(layer).__name__ for layer in made.impossible.values()} == \
        {'Involution2d', 'DCDC2d'}
    assert made.left == {'head': 'it has 7 classes, and that of the checkpoint 3'}


@pytest.mark.parametrize(('network', 'weights', 'words'), [
    ('resnet18', lambda: torchvision.models.resnet34().state_dict(), ['unexpected', 'layer1.2.conv1.weight']),
    ('resnet18', lambda: torchvision.models.mobilenet_v2().state_dict(), ['missing', 'backbone.layer1.0.conv1.weight']),
    ('mobilenet-v2', lambda: torchvision.models.mobilenet_v2(width_mult=.5).state_dict(),
     ['of another shape', 'backbone.conv1.conv.weight: [16, 3, 3, 3] instead of [32, 3, 3, 3]']),
    ('mobilenet-v2', lambda: torchvision.models.efficientnet_b0().state_dict(), ['features.1.0.block.0.0.weight']),
    ('resnet18', lambda: {'fc.weight': torch.ones(7, 512), 'layer1.0.conv1.weight': torch.ones(64, 64, 3, 3)},
     ['missing', 'backbone.conv1.weight']),
    ('resnet18', lambda: ODConvResNet(depth=18).state_dict(), ['[4, 64, 64, 3, 3] instead of [64, 64, 3, 3]']),
    ('resnet18', lambda: torchvision.models.vgg11(init_weights=False).state_dict(), ['no weights of a static ResNet']),
], ids=['resnet34', 'mobilenet', 'width', 'efficientnet', 'part', 'dynamic', 'vgg'])
def test_other_architectures(network, weights, words):
    _, dynamic = make_pair(network, 'ODConv1x')
    before = state(dynamic)
    with pytest.raises(CheckpointError) as refused:
        warm_start(dynamic, weights())
    assert all(word in str(refused.value) for word in words)
    assert all(value.equal(before[name]) for name, value in dynamic.state_dict().items())


def test_nothing_in_common():
    dynamic = nn.Sequential()
    dynamic.backbone = RedNet(depth=26)
    with pytest.raises(CheckpointError, match='nothing in common'):
        warm_start(dynamic, {'backbone.conv1.weight': torch.ones(64, 3, 7, 7)})


def test_bad_models_and_parts():
    static, dynamic = make_pair('resnet18', 'ODConv1x')
    with pytest.raises(ValueError, match='model must have a backbone and a dynamic layer'):
        warm_start(dynamic.backbone, static.state_dict())
    with pytest.raises(ValueError, match='model must have a backbone and a dynamic layer'):
        warm_start(static, static.state_dict())
    with pytest.raises(ValueError, match=r"parts must be out of \['backbone', 'head'\], but neck"):
        warm_start(dynamic, static.state_dict(), parts=['backbone', 'neck'])


def test_max_difference_leaves_the_models_as_they_are():
    """Where an output cannot be compared, too."""
    static, dynamic = make_pair('resnet18', 'ODConv4x')
    made = warm_start(dynamic, static.state_dict())
    dynamic.train().backbone.layer1.eval()
    for module in dynamic.modules():
        if isinstance(module, TemperatureMixin):
            module.set_temperature(7.1)
    before = model_state(dynamic), model_state(made.static)
    max_difference(made.static, dynamic, torch.randn(2, 3, 64, 64), with_head=True)
    assert (model_state(dynamic), model_state(made.static)) == before
    dynamic.head.register_forward_pre_hook(lambda *call: 1 / 0)
    before = model_state(dynamic), model_state(made.static)
    with pytest.raises(ZeroDivisionError):
        max_difference(made.static, dynamic, torch.randn(2, 3, 64, 64), with_head=True)
    assert (model_state(dynamic), model_state(made.static)) == before

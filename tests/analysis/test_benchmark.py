"""Networks beside the static ones they stand in for."""
from __future__ import annotations

import pytest
import torch

from dynconv_mm.analysis import benchmark
from dynconv_mm.analysis.benchmark import (
    GOALS,
    Result,
    Setting,
    build_network,
    compare,
    describe_machine,
    goal,
    make_step,
    markdown,
    static_network,
)
from dynconv_mm.functional.mixture_conv import MIXTURE_CONV
from dynconv_mm.functional.operator import is_channels_last
from dynconv_mm.layers import ODConv2d
from dynconv_mm.models import (
    CondConvMobileNetV2,
    DCDCResNet,
    DCDResNet,
    DyConvResNet,
    KWMobileNetV2,
    KWResNet,
    ODConvMobileNetV2,
    RedNet,
)
from dynconv_mm.models.backbones import MobileNetV2, ResNet

SMALL = Setting(False, 2, 1, size=32)
NAMES = {
    'resnet18': (ResNet, 'resnet18'),
    'mobilenet-v2-w050': (MobileNetV2, 'mobilenet-v2-w050'),
    'odconv1x-mobilenet-v2-w100': (ODConvMobileNetV2, 'mobilenet-v2-w100'),
    'dyconv4x-resnet18': (DyConvResNet, 'resnet18'),
    'condconv8x-mobilenet-v2-w075': (CondConvMobileNetV2, 'mobilenet-v2-w075'),
    'dcd-resnet50': (DCDResNet, 'resnet50'),
    'dcdc-resnet26': (DCDCResNet, 'resnet26'),
    'rednet50': (RedNet, 'resnet50'),
    'kw1d4x-resnet18': (KWResNet, 'resnet18'),
    'kw1d2x-resnet50': (KWResNet, 'resnet50'),
    'kw4x-mobilenet-v2-w050': (KWMobileNetV2, 'mobilenet-v2-w050'),
}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('name', NAMES)
def test_networks_by_name(name):
    kind, static = NAMES[name]
    with torch.device('meta'):
        assert type(build_network(name)) is kind
    assert static_network(name) == static


@pytest.mark.parametrize(('name', 'static'), [
    ('faster-rcnn_odconv4x-r50_fpn_1x_coco', 'faster-rcnn_r50_fpn_1x_coco'),
    ('mask-rcnn_dcd-mobilenet-v2_fpn_1x_coco', 'mask-rcnn_mobilenet-v2_fpn_1x_coco'),
    ('panoptic-fpn_dcdc-r50_dcdc-fpn_1x_coco', 'panoptic-fpn_r50_fpn_1x_coco'),
    ('retinanet_rednet50_involution-fpn_1x_coco', 'retinanet_r50_fpn_1x_coco'),
    ('retinanet_r101_fpn_1x_coco', 'retinanet_r101_fpn_1x_coco'),
    ('mask-rcnn_kw4x-r50_fpn_1x_coco', 'mask-rcnn_r50_fpn_1x_coco'),
])
def test_detectors_by_name(name, static):
    assert static_network(name) == static


@pytest.mark.parametrize('name', ['faster-rcnn_odconv5x-r50_fpn_1x_coco', 'retinanet_dcdc-r26_dcdc-fpn_1x_coco'])
def test_detectors_that_have_no_pair(name):
    with pytest.raises(ValueError, match='but there is no .* in configs'):
        static_network(name)


@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
@pytest.mark.first_is_quick('name')
@pytest.mark.parametrize('name', ['faster-rcnn_odconv1x-r50_fpn_1x_coco', 'panoptic-fpn_dcdc-r50_dcdc-fpn_1x_coco'])
def test_a_step_of_a_detector(name, training, monkeypatch):
    pytest.importorskip('mmdet')
    detector = build_network(name)
    monkeypatch.setattr(benchmark, 'build_network', lambda name: detector)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    make_step(name, Setting(training, 2, 1, size=64, width=96))()
    changed = {key for key, value in detector.state_dict().items() if not value.equal(before[key])}
    assert any('roi_head' in key for key in changed) == any('rpn_head' in key for key in changed) == training


def test_arguments_in_the_name():
    with torch.device('meta'):
        odconv, dyconv = build_network('odconv2x-resnet18'), build_network('dyconv4x-mobilenet-v2-w050')
    assert {module.kernel_num for module in odconv.modules() if hasattr(module, 'kernel_num')} == {2}
    assert {module.kernel_num for module in dyconv.modules() if hasattr(module, 'kernel_num')} == {4}
    assert dyconv.conv2.conv.in_channels < 320


@pytest.mark.parametrize(('name', 'sizes'), [('1x1', {(1, 1)}), ('3x3', {(3, 3)}),
                                             ('last-6-blocks', {(1, 1), (3, 3)})])
def test_placement_in_the_name(name, sizes):
    """ODConv, Table 9."""
    with torch.device('meta'):
        network = build_network(f'odconv1x-mobilenet-v2-w050-{name}')
    assert {module.kernel_size for module in network.modules() if hasattr(module, 'kernel_num')} == sizes
    assert static_network(f'odconv1x-mobilenet-v2-w050-{name}') == 'mobilenet-v2-w050'


@pytest.mark.parametrize('name', ['resnet', 'odconv-resnet50', 'odconvx-resnet18', 'dcdc-mobilenet-v2-w100', 'vgg16',
                                  'resnet50_8xb32_in1k', 'dyconv4x-resnet18-1x1', 'resnet18-3x3'])
def test_unknown_networks_are_refused(name):
    for function in (build_network, static_network):
        with pytest.raises(ValueError, match='network must be named as in configs'):
            function(name)


def test_close_names_of_networks():
    with pytest.raises(ValueError, match="but is 'odcnv4x-resnet50'; did you mean 'odconv4x-resnet50'"):
        build_network('odcnv4x-resnet50')
    with pytest.raises(ValueError, match="no 'faster-rcnn_odconv4-r50_fpn_1x_coco' in configs/; did you mean "
                                         "'faster-rcnn_odconv4x-r50_fpn_1x_coco'"):
        static_network('faster-rcnn_odconv4-r50_fpn_1x_coco')


def test_goals_are_of_networks_that_there_are():
    assert all(static_network(name) in ('resnet50', 'mobilenet-v2-w100') for name in GOALS)


def test_comparison():
    results = compare(['odconv2x-mobilenet-v2-w050'], ['auto', 'grouped'], SMALL, range(3), memory=False)
    assert [(result.network, result.plan) for result in results] == [
        ('mobilenet-v2-w050', 'auto'), ('odconv2x-mobilenet-v2-w050', 'auto'),
        ('odconv2x-mobilenet-v2-w050', 'grouped')]
    assert (results[0].ratio, results[0].quartiles, results[0].memory_ratio) == (1, (1, 1), None)
    for result in results:
        assert result.milliseconds > 0 and result.quartiles[0] <= result.ratio <= result.quartiles[1]


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_of_its_own():
    ballast = torch.ones(2**29, dtype=torch.uint8)  # of this process
    static, dynamic = compare(['odconv4x-mobilenet-v2-w050'], ['auto'], SMALL._replace(training=True), range(1))
    assert static.memory_ratio == 1
    assert dynamic.memory_ratio == dynamic.peak_megabytes / static.peak_megabytes
    # one process holds 3 more kernels and their gradients and momenta
    assert 4 < dynamic.peak_megabytes - static.peak_megabytes < len(ballast) / 1e6


def test_networks_of_two_kinds_are_not_compared():
    with pytest.raises(ValueError, match="compared with .*'mobilenet-v2-w100', 'resnet18'"):
        compare(['odconv1x-resnet18', 'odconv1x-mobilenet-v2-w100'], ['auto'], SMALL, range(1))


@pytest.mark.parametrize('setting', [SMALL, SMALL._replace(channels_last=True), SMALL._replace(dtype='bfloat16'),
                                     SMALL._replace(training=True)], ids=['plain', 'channels_last', 'bfloat16',
                                                                          'training'])
def test_steps(setting, monkeypatch):
    """What a layer in the network gets is what the setting says, and weights change in training alone."""
    network, seen = build_network('odconv1x-mobilenet-v2-w050'), []

    def look(layer: ODConv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.append((layer.training, torch.is_grad_enabled(), str(output.dtype), tuple(inputs[0].shape[::2]),
                     is_channels_last(inputs[0]), MIXTURE_CONV.plan_for_all.get()))

    next(module for module in network.modules() if isinstance(module, ODConv2d)).register_forward_hook(look)
    monkeypatch.setattr(benchmark, 'build_network', lambda name: network)
    before = [parameter.clone() for parameter in network.parameters()]
    step = make_step('odconv1x-mobilenet-v2-w050', setting, 'fold')
    assert not seen
    step()
    assert seen == [(setting.training, setting.training, f'torch.{setting.dtype}', (2, 16), setting.channels_last,
                     'fold')]
    changed = [not parameter.equal(old) for parameter, old in zip(network.parameters(), before)]
    assert any(changed) == setting.training


def result(network: str = 'odconv4x-resnet50', plan: str = 'auto', **setting) -> Result:
    setting = Setting(**dict(dict(training=False, batch=8, threads=1), **setting))
    return Result(network, plan, setting, 1234.5, 1.4567, (1.4, 1.5), 2345.6, 1.789)


def test_goals():
    assert (goal(result()), goal(result(batch=1)), goal(result(training=True))) == (1.25, 1.20, 1.30)
    assert (goal(result(), True), goal(result(training=True), True)) == (None, 1.50)
    for other in (result(plan='grouped'), result(dtype='bfloat16'), result(batch=4), result('resnet50'),
                  result(training=True, batch=1), result(size=160)):
        assert goal(other) is None


def test_table():
    text = markdown([result('resnet50'), result(), result(training=True, threads=2)], dict(processor='P', cores='2'))
    assert text.startswith('processor P; cores 2\n')
    assert '**inference, batch 8, 1 thread** (224², cpu, float32)' in text
    assert '**training, batch 8, 2 threads** (224², cpu, float32)' in text
    assert '| odconv4x-resnet50 | auto | 1234 | 1.46 | 1.40–1.50 | 1.25 | 2346 | 1.79 |  |' in text
    assert '| odconv4x-resnet50 | auto | 1234 | 1.46 | 1.40–1.50 | 1.30 | 2346 | 1.79 | 1.50 |' in text
    row = result(runtime='folded')._replace(milliseconds=12.34, peak_megabytes=None, memory_ratio=None)
    text = markdown([row], {})
    assert '| network | plan | ms | ratio | quartiles | to reach |\n' in text  # and no columns of nothing
    assert text.endswith('| odconv4x-resnet50 | auto | 12.3 | 1.46 | 1.40–1.50 | 1.20 |\n')


def test_machine():
    machine = describe_machine()
    assert torch.__version__ in machine['torch'] and int(machine['cores']) > 0 and machine['processor']


def test_compiled_with_constant_weights(monkeypatch):
    from torch._inductor import config
    frozen = []
    monkeypatch.setattr(torch, 'compile', lambda model: lambda images: frozen.append(config.freezing) or model(images))
    make_step('odconv1x-mobilenet-v2-w050', SMALL._replace(runtime='compile', size=32, width=64))()
    assert frozen == [True, False]  # when it is compiled, and later


def test_goals_of_exports():
    setting = Setting(False, 8, 1, runtime='openvino')
    result = Result('odconv4x-resnet50', 'auto', setting, 1., 1., (1., 1.), None, None)
    assert goal(result) == 1.30 and goal(result, memory=True) is None
    for other in (dict(batch=4), dict(size=96), dict(width=96)):
        assert goal(result._replace(setting=setting._replace(**other))) is None
    assert goal(result._replace(setting=setting._replace(runtime='compile'))) is None
    assert goal(result._replace(setting=setting._replace(dynamic=True))) == pytest.approx(1.69)
    image = setting._replace(batch=1, size=800, width=1216)
    assert goal(result._replace(setting=image)) is None
    assert goal(result._replace(setting=image._replace(runtime='folded'))) == 1.10


def test_norms_are_folded(monkeypatch):
    from dynconv_mm.analysis import benchmark
    models, build = [], benchmark.build_network
    monkeypatch.setattr(benchmark, 'build_network', lambda name: models.append(build(name)) or models[-1])
    for name in ('mobilenet-v2-w050', 'odconv1x-mobilenet-v2-w050'):
        make_step(name, SMALL._replace(runtime='folded'))()
        norms = [module for module in models[-1].modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert not norms

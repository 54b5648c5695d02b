"""Exported networks compute what PyTorch computes, for batches and images of other sizes than they were traced with."""
import sys

import numpy as np
import pytest
import torch
from thin_networks import settle
from torch import nn

import dynconv_mm
from dynconv_mm import (
    CBAM,
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DDFConv2d,
    DyConv2d,
    ECALayer,
    FDConv2d,
    Involution2d,
    KWConv2d,
    LocalRelation2d,
    LSConv2d,
    ODConv2d,
    PairwiseSelfAttention2d,
    SELayer,
    StandAloneSelfAttention2d,
    WEConv2d,
    WeightNetConv2d,
    build_warehouses,
)
from dynconv_mm.conversion import export as module
from dynconv_mm.conversion.export import ExportError, export
from dynconv_mm.conversion.onnx_graph import graph_of_one_image

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

NEEDS_EXPORT = pytest.mark.skipif(not hasattr(torch.compiler, 'is_exporting'), reason='needs torch >= 2.7')
# odd sizes, strides, groups, dilations; 16 channels
LAYERS = {
    'odconv-strided': lambda: ODConv2d(16, 24, 3, stride=2, padding=1),
    'odconv-one-kernel': lambda: ODConv2d(16, 24, (3, 5), padding=(1, 2), kernel_num=1),
    'odconv-pointwise': lambda: ODConv2d(16, 24, 1, stride=2),
    'odconv-pointwise-one-kernel': lambda: ODConv2d(16, 24, 1, kernel_num=1),
    'odconv-depthwise': lambda: ODConv2d(16, 16, 3, padding=1, groups=16),
    'odconv-groups': lambda: ODConv2d(16, 24, 3, padding=2, dilation=2, groups=2, plan='fold'),
    'odconv-own-attentions': lambda: ODConv2d(16, 24, 3, share_attention=False, spatial_activation='softmax',
                                              spatial_pool_size=3),
    'odconv-few-attentions': lambda: ODConv2d(16, 24, 3, attentions=('kernel', 'filter'), norm_cfg=dict(type='LN'),
                                              bias=False),
    'odconv-reflect': lambda: ODConv2d(16, 24, 3, padding=1, padding_mode='reflect'),
    'odconv-same': lambda: ODConv2d(16, 24, 2, padding='same'),
    'dyconv': lambda: DyConv2d(16, 24, 3, padding=1),
    'dyconv-depthwise': lambda: DyConv2d(16, 16, 3, stride=2, padding=1, groups=16),
    'condconv': lambda: CondConv2d(16, 24, 3, padding=1),
    'dcd-bottleneck': lambda: DCDConv2d(16, 24, 3, stride=2, padding=1),
    'dcd-basic': lambda: DCDConv2d(16, 24, 3, padding=1, variant='basic', blocks=2),
    'dcd-mobilenet': lambda: DCDConv2d(16, 24, 1, variant='mobilenet'),
    'dcd-paper': lambda: DCDConv2d(16, 24, 3, padding=1, variant='paper'),
    'dcd-joint': lambda: DCDConv2d(16, 24, 3, padding=1, variant='paper', fusion='joint'),
    'dcd-depthwise': lambda: DCDConv2d(16, 16, 3, stride=2, padding=1, groups=16, variant='paper'),
    'involution': lambda: Involution2d(32, 32, 7),
    'involution-strided': lambda: Involution2d(32, 32, 5, stride=2, dilation=2),
    'dcdc': lambda: DCDC2d(32, 32, gsi_ratio=2.),
    'cgc': lambda: CGConv2d(16, 24, (3, 5), padding=(1, 2), group_channels=4),
    'weightnet': lambda: WeightNetConv2d(16, 24, 3, stride=2, padding=1, multiplier=4),
    'ddf': lambda: DDFConv2d(16, 16, 3, stride=2, heads=4),
    'ddf-add': lambda: DDFConv2d(16, 16, 5, combine='add'),
    'kw': lambda: KWConv2d(16, 24, 3, stride=2, padding=1, temperature=.25),
    'kw-few-cells': lambda: KWConv2d(16, 24, (1, 3), groups=2, cell_num_ratio=1 / 3, cell_in_ratio=1 / 2),
    'kw-bases': lambda: with_bases(),
    'kw-depthwise': lambda: KWConv2d(16, 16, 3, padding=1, groups=16, padding_mode='reflect'),
    'we': lambda: WEConv2d(16, 24, 3, padding=1),
    'local-relation': lambda: LocalRelation2d(16, 16, 5, stride=2),
    'local-relation-product': lambda: LocalRelation2d(16, 16, 3, similarity='product'),
    'stand-alone-attention': lambda: StandAloneSelfAttention2d(16, 16, 5, stride=2, heads=2),
    'pairwise-attention': lambda: PairwiseSelfAttention2d(32, 16, 3),
    'pairwise-attention-on-few-pixels': lambda: nn.Sequential(nn.AvgPool2d(5), PairwiseSelfAttention2d(16, 16, 5)),
    'fdconv': lambda: FDConv2d(17, 24, 3, stride=2, padding=1),
    'fdconv-pointwise': lambda: FDConv2d(18, 24, 1, kernel_num=5, bias=False),
    'lsconv': lambda: LSConv2d(16, 16),
    'dcdc-strided': lambda: DCDC2d(32, 32, stride=2, gsi_kernel_size=3, lsa_kernel_size=5),
    'dcdc-none': lambda: DCDC2d(16, 16, gsi='none', lsa_dw_kernel_size=None),
    'dcdc-conv-small': lambda: DCDC2d(16, 16, gsi='conv_small'),
    'dcdc-conv-large': lambda: DCDC2d(16, 16, gsi='conv_large'),
    'se': lambda: SELayer(16),
    'cbam': lambda: CBAM(16),
    'eca': lambda: ECALayer(16),
}


def with_bases() -> nn.Module:
    """Two layers that share cells, whose attentions combine bases."""
    model = nn.Sequential(*(KWConv2d(16, 16, size, warehouse='both', nonlocal_basis_ratio=1 / 2) for size in (3, 1)))
    build_warehouses(model)
    return model


THIN = dict(stem_channels=16, base_channels=16, out_indices=(0, 1, 2, 3))
WIDER = {**THIN, 'stem_channels': 32}  # half of which are groups of 16
NETWORKS = {
    'ODConvResNet': dict(depth=18, **THIN), 'DyConvResNet': dict(depth=18, **THIN),
    'DCDResNet': dict(depth=18, **THIN), 'CondConvMobileNetV2': dict(widen_factor=0.25),
    'RedNet': dict(depth=26, **WIDER), 'DCDCResNet': dict(depth=26, **WIDER),
    'LRNet': dict(depth=26, kernel_size=3, **THIN), 'SAResNet': dict(depth=26, kernel_size=3, heads=4, **THIN),
}


def randomize(network: nn.Module) -> nn.Module:
    """No norm at 0 or 1, which would hide a mistake."""
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for values, least in ((norm.weight, 0.5), (norm.running_var, 0.5), (norm.bias, -0.2),
                                  (norm.running_mean, -0.2)):
                nn.init.uniform_(values, least, least + 0.5)
    return network


def of_one_image(path):
    """The graph in a file, or the one that a loop over several images runs."""
    model = onnx.load(path)
    return (graph_of_one_image(model) or model).graph


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session.run(None, {'images': images.numpy()})


def assert_equal(network, run, *shapes):
    network.eval()
    for shape in shapes:
        images = torch.randn(shape)
        with torch.no_grad():
            expected = network(images)
        expected = [expected] if isinstance(expected, torch.Tensor) else expected
        actual = run(images)
        assert len(actual) == len(expected)
        for ours, theirs in zip(actual, expected):
            scale = theirs.abs().max().item()
            assert scale > 0
            np.testing.assert_allclose(np.asarray(ours) / scale, theirs.numpy() / scale, atol=1e-4, rtol=0)


@pytest.mark.one_at_a_time('name', 'batch')
@pytest.mark.parametrize('batch', [None, 1, 3])
@pytest.mark.parametrize('name', LAYERS)
def test_layer(name, batch, tmp_path):
    """With a norm behind it, and for one image, several or any number; in graphs that nothing is left to shorten in."""
    torch.manual_seed(0)
    layer, path = LAYERS[name](), tmp_path / 'layer.onnx'
    channels = getattr(layer, 'in_channels', 16)
    network = randomize(nn.Sequential(layer, nn.BatchNorm2d(getattr(layer, 'out_channels', channels)), nn.ReLU()))
    fixed = dict(dynamic=True) if batch is None else dict(batch=batch)
    written = export(network, path, input_size=(9, 11), in_channels=channels, **fixed)
    assert written.difference < 1e-4 and written.opset == 17 and written.size == path.stat().st_size
    assert written.outputs == ('feature_0', )
    shapes = [(1, channels, 13, 8), (3, channels, 10, 10)] if batch is None else [(batch, channels, 9, 11)]
    assert_equal(network, lambda images: run_onnx(path, images), *shapes)
    kinds = {node.op_type for node in of_one_image(path).node}
    assert not {'BatchNormalization', 'Identity', 'Constant', 'Dropout', *['Shape'] * (batch is not None)} & kinds


@pytest.mark.first_is_quick('name')
@pytest.mark.parametrize('name', NETWORKS)
def test_network(name, tmp_path):
    torch.manual_seed(0)
    network = settle(getattr(dynconv_mm, name)(**NETWORKS[name]))
    path = tmp_path / 'network.onnx'
    written = export(network, path, input_size=(32, 40), dynamic=True)
    assert written.outputs == tuple(f'feature_{index}' for index in range(len(network.out_indices)))
    assert_equal(network, lambda images: run_onnx(path, images), (1, 3, 45, 33))


@NEEDS_EXPORT
@pytest.mark.first_is_quick('name')
@pytest.mark.parametrize('name', ['odconv-pointwise-one-kernel', 'dyconv', 'dcd-basic'])
def test_dynamo(name, tmp_path):
    pytest.importorskip('onnxscript')
    torch.manual_seed(0)
    layer, path = randomize(LAYERS[name]()), tmp_path / 'layer.onnx'
    assert export(layer, path, input_size=(9, 11), dynamic=True, exporter='dynamo').opset == 18
    assert_equal(layer, lambda images: run_onnx(path, images), (1, 16, 13, 8), (3, 16, 10, 10))


@pytest.mark.first_is_quick('name')
@NEEDS_EXPORT
@pytest.mark.parametrize('name', ['odconv-own-attentions', 'involution-strided'])
def test_program(name, tmp_path):
    torch.manual_seed(0)
    layer, path = randomize(LAYERS[name]()), tmp_path / 'layer.pt2'
    written = export(layer, path, format='torch-export', input_size=(9, 11), dynamic=True)
    assert written.opset is None
    program = torch.export.load(path)
    assert not [node for node in program.graph.nodes if 'dynconv_mm' in str(node.target)]
    channels = layer.in_channels
    assert_equal(layer, program.module(), (1, channels, 13, 9), (3, channels, 11, 13))


def test_one_image_alone(tmp_path):
    layer = ODConv2d(3, 8, 3)
    export(layer, tmp_path / 'layer.onnx', input_size=(9, 11))
    assert_equal(layer, lambda images: run_onnx(tmp_path / 'layer.onnx', images), (1, 3, 9, 11))
    with pytest.raises(Exception, match='Got invalid dimensions'):
        run_onnx(tmp_path / 'layer.onnx', torch.randn(2, 3, 9, 11))


def test_openvino(tmp_path):
    pytest.importorskip('openvino')
    torch.manual_seed(0)
    for batch in (1, 2):
        layer = ODConv2d(16, 24, 3, padding=1)
        export(layer, tmp_path / 'layer.onnx', input_size=(9, 11), batch=batch, runtime='openvino')
        assert_equal(layer, module.load_onnx(tmp_path / 'layer.onnx', 'openvino', 1), (batch, 16, 9, 11))


@pytest.mark.parametrize('batch', [None, 3])
@pytest.mark.parametrize('name', ['odconv-strided', 'odconv-groups', 'involution', 'involution-strided', 'dcdc'])
def test_graphs_for_openvino_in_the_other_runtime(name, batch, tmp_path, monkeypatch):
    """Where OpenVINO is not installed: what its graphs compute, at other sizes too."""
    load, get = module.load_onnx, module.import_runtime
    monkeypatch.setattr(module, 'load_onnx', lambda path, runtime: load(path))
    monkeypatch.setattr(module, 'import_runtime', lambda package: None if package == 'openvino' else get(package))
    torch.manual_seed(0)
    layer, path = randomize(LAYERS[name]()), tmp_path / 'layer.onnx'
    fixed = dict(dynamic=True) if batch is None else dict(batch=batch)
    export(layer, path, input_size=(9, 11), runtime='openvino', **fixed)
    shapes = [(1, layer.in_channels, 13, 8)] if batch is None else [(batch, layer.in_channels, 9, 11)]
    assert_equal(layer, lambda images: run_onnx(path, images), *shapes)


def test_norms_behind_all_that_takes_them(tmp_path):
    """A sum of which only one side can be scaled, a value that is used twice, a sum with a constant."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(4))

        def forward(self, x):
            one, two, three = (conv(x) for conv in self.convs)
            sums = self.norms[0](one + x), self.norms[1](two), two, self.norms[2](three * x.sigmoid())
            return sum(value.relu() for value in sums), self.norms[3](x)

    torch.manual_seed(0)
    network, path = randomize(Network()), tmp_path / 'network.onnx'
    export(network, path, input_size=(5, 6))
    assert_equal(network, lambda images: run_onnx(path, images), (1, 4, 5, 6))
    assert 'BatchNormalization' not in {node.op_type for node in onnx.load(path).graph.node}


def test_norms_that_are_outputs_too(tmp_path):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([ODConv2d(3, 8, 3), nn.Conv2d(8, 4, 1)])
            self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in (8, 4))

        def forward(self, x):
            first = self.norms[0](self.convs[0](x))
            second = self.norms[1](self.convs[1](first))
            return first, second, second.relu()

    torch.manual_seed(0)
    network, path = randomize(Network()), tmp_path / 'network.onnx'
    export(network, path, input_size=(11, 14))
    assert_equal(network, lambda images: run_onnx(path, images), (1, 3, 11, 14))


def test_a_norm_by_the_statistics_of_its_input(tmp_path):
    torch.manual_seed(0)
    network, path = nn.Sequential(ODConv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)), tmp_path / 'a.onnx'
    export(network, path, input_size=(11, 14))
    assert_equal(network, lambda images: run_onnx(path, images), (1, 3, 11, 14))


def test_channels_are_those_of_a_convolution(tmp_path):
    network = nn.Sequential(ODConv2d(5, 8, 3))
    network.in_channels = 320  # mmpretrain's MobileNetV2 counts what its next stage takes
    assert export(network, tmp_path / 'network.onnx', input_size=(9, 9)).difference < 1e-4


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype, tmp_path):
    with pytest.raises(ExportError, match=f'must be in float32, but has parameters of {dtype}: call network.float'):
        export(ODConv2d(3, 8, 3, dtype=dtype), tmp_path / 'layer.onnx')
    assert not list(tmp_path.iterdir())


def test_a_folder(tmp_path):
    with pytest.raises(ExportError, match='path must be a file to write, but .* is a folder'):
        export(ODConv2d(3, 8, 3), tmp_path)


@pytest.mark.slow
def test_outputs_that_do_not_depend_on_the_images(tmp_path):
    class Classifier(nn.Module):
        """A bias, and features that vanish in a fresh network in eval mode."""

        def __init__(self):
            super().__init__()
            self.backbone = dynconv_mm.ODConvMobileNetV2(widen_factor=0.25, kernel_num=1)
            self.fc = nn.Linear(1280, 5)

        def forward(self, x):
            return self.fc(self.backbone(x)[0].mean((2, 3)))

    torch.manual_seed(0)
    network = Classifier()
    network.backbone.init_weights()
    with pytest.raises(ExportError, match='feature_0 are the same for different images.*settle=True'):
        export(network, tmp_path / 'network.onnx', input_size=(64, 64))
    assert not list(tmp_path.iterdir())
    written = export(network, tmp_path / 'network.onnx', input_size=(64, 64), settle=True)
    assert 0 < written.difference < 1e-2


def test_outputs_that_are_not_finite(tmp_path):
    layer = ODConv2d(3, 8, 3)
    nn.init.constant_(layer.bias, float('inf'))
    with pytest.raises(ExportError, match='outputs are not finite.*settle=True'):
        export(layer, tmp_path / 'layer.onnx', input_size=(9, 9))


def test_rounding_is_no_difference(tmp_path, monkeypatch):
    """What PyTorch itself is from float64, times some; not what is wrong."""
    torch.manual_seed(0)
    monkeypatch.setattr(module, 'TOLERANCE', 1e-12)
    layer = ODConv2d(16, 24, 3)
    assert export(layer, tmp_path / 'layer.onnx', input_size=(9, 9)).difference > 1e-12
    for limit in ('ROUNDING', 'LOOSEST'):
        with monkeypatch.context() as patch, pytest.raises(ExportError, match='from which PyTorch.s differ by'):
            patch.setattr(module, limit, 0)
            export(layer, tmp_path / 'layer.onnx', input_size=(9, 9))


@pytest.mark.slow
def test_a_classifier(tmp_path):
    pytest.importorskip('mmpretrain')
    model = dynconv_mm.get_model('dcd-resnet18_8xb32_in1k', backbone=dict(stem_channels=8, base_channels=8),
                                 head=dict(num_classes=7, in_channels=64))
    written = export(model, tmp_path / 'model.onnx', input_size=(32, 32), dynamic=True, settle=True)
    assert written.outputs == ('logits', )
    notes = {note.key: note.value for note in onnx.load(tmp_path / 'model.onnx').metadata_props}
    assert notes == {'mean': '123.675 116.28 103.53', 'std': '58.395 57.12 57.375', 'channels': 'RGB'}
    assert_equal(model, lambda images: run_onnx(tmp_path / 'model.onnx', images), (1, 3, 40, 32), (3, 3, 32, 40))
    written = export(model, tmp_path / 'backbone.onnx', part='backbone', input_size=(32, 32))
    assert written.outputs == ('feature_0', )


@pytest.mark.first_is_quick('name')
@pytest.mark.parametrize(('name', 'outputs'), [
    ('retinanet_dcdc-r26-thin_dcdc-fpn_digits', {'cls_score', 'bbox_pred'}),
    ('panoptic-fpn_dcdc-r26-thin_dcdc-fpn_digits', {'feature', 'rpn_cls_score', 'rpn_bbox_pred', 'seg_logits'}),
])
def test_a_detector(name, outputs, root, tmp_path):
    pytest.importorskip('mmdet')
    model = dynconv_mm.get_model(root / 'configs' / 'demo' / f'{name}.py')
    written = export(model, tmp_path / 'model.onnx', input_size=(64, 96), dynamic=True)
    assert {output.rstrip('0123456789').rstrip('_') for output in written.outputs} == outputs
    exportable = module.Exportable(model)
    assert_equal(exportable, lambda images: run_onnx(tmp_path / 'model.onnx', images), (1, 3, 96, 64))


def test_the_network_is_left_as_it_was(tmp_path):
    layer = ODConv2d(3, 8, 3)
    layer.weight.requires_grad = False
    layer.attention.bn.eval()
    export(layer, tmp_path / 'layer.onnx', input_size=(9, 9))
    assert layer.training and layer.attention.training and not layer.attention.bn.training
    assert {name for name, value in layer.named_parameters() if not value.requires_grad} == {'weight'}


@pytest.mark.parametrize(('options', 'message'), [
    (dict(format='tflite'), "format must be one of .*'tflite'"),
    (dict(exporter='jit'), "exporter must be one of .*'jit'"),
    (dict(part='neck'), "part must be 'model' or 'backbone', but is 'neck'"),
    (dict(part='backbone'), "part='backbone' needs a network with a backbone, and ODConv2d has none"),
    (dict(input_size=(0, 9)), r'input_size must be two positive ints, height and width, but is \(0, 9\)'),
    (dict(input_size=9), 'input_size must be two positive ints, height and width, but is 9'),
    (dict(input_size=(2, 9)), 'does not take images of 2×9'),
    (dict(format='torch-export', runtime='openvino'), "runtime must be left out with format='torch-export'"),
    (dict(batch=0), 'batch must be a positive int, but is 0'),
    (dict(batch=2, dynamic=True), 'batch must be left out with dynamic=True, which takes any, but is 2'),
    (dict(runtime='tvm'), "runtime must be one of .*'tvm'"),
    (dict(opset=11), "opset must be at least 17 with exporter='torchscript'.*but is 11"),
    (dict(opset=18, format='torch-export'), "left out with format='torch-export', but is 18"),
    (dict(opset=99, input_size=(9, 9)), 'opset must be one that torch .* writes .*but is 99'),
])
def test_bad_arguments(options, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export(ODConv2d(3, 8, 3), tmp_path / 'layer.onnx', **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime'])
def test_missing_package(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f'or running what was exported, needs {package}, which is not '
                                          'installed: `pip install'):
        export(ODConv2d(3, 8, 3), tmp_path / 'layer.onnx')


def test_missing_openvino(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(ImportError, match='needs openvino, which is not installed: `pip install openvino`'):
        export(ODConv2d(3, 8, 3), tmp_path / 'layer.onnx', runtime='openvino')
    assert not list(tmp_path.iterdir())


def test_a_runtime_that_is_too_old(tmp_path, monkeypatch):
    def too_old(*arguments):
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail('opset 17 is under development')

    monkeypatch.setattr(module, '_load_onnxruntime', too_old)
    with pytest.raises(ExportError, match=r"runtime 'onnxruntime' \d.* does not read the graph: install a newer one"):
        export(ODConv2d(3, 8, 3), tmp_path / 'layer.onnx', input_size=(9, 9))
    assert not list(tmp_path.iterdir())


def test_old_torch(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.compiler, 'is_exporting', raising=False)
    for options in (dict(format='torch-export'), dict(exporter='dynamo')):
        with pytest.raises(ExportError, match='needs torch ≥ 2.7'):
            export(ODConv2d(3, 8, 3), tmp_path / 'layer', **options)


def test_a_difference_is_no_file(tmp_path, monkeypatch):
    load = module.load_onnx
    monkeypatch.setattr(module, 'load_onnx', lambda *of: lambda images: [1.001 * y for y in load(*of)(images)])
    with pytest.raises(ExportError, match='differ from PyTorch.*by 1.0e-03 of the largest value'):
        export(ODConv2d(3, 8, 3), tmp_path / 'layer.onnx', input_size=(9, 9))
    assert not list(tmp_path.iterdir())

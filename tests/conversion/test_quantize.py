"""Networks in INT8: which nodes stay in float, and how far the rest is from what it was."""
import pytest
import torch
from thin_networks import settle
from torch import nn

from dynconv_mm.conversion.export import ExportError, export, load_onnx
from dynconv_mm.conversion.quantize import compare, dynamic_nodes, quantize
from dynconv_mm.conversion.settle_norms import random_images
from dynconv_mm.models import backbones

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

THIN = dict(stem_channels=16, base_channels=16)
# the backbone, its arguments, convolutions that are quantised, and those by kernels that the graph makes
NETWORKS = {
    'static': ('ResNet', dict(depth=18, **THIN), 20, 0),
    'odconv': ('ODConvResNet', dict(depth=18, kernel_num=4, **THIN), 4, 16),  # the stem and three shortcuts
    'dcd': ('DCDResNet', dict(depth=18, **THIN), 52, 16),  # by Φ
    'rednet': ('RedNet', dict(depth=26, base_channels=16, stem_channels=32), None, 0),
    'dcdc': ('DCDCResNet', dict(depth=26, base_channels=16, stem_channels=32), None, 8),  # GSI's
}


def images(count: int) -> list[torch.Tensor]:
    return [random_images(1, 3, 64, 64, seed=seed) for seed in range(count)]


@pytest.fixture
def float_graph(tmp_path):
    """Exports a network by its name."""

    def make(name: str, **options):
        kind, arguments = NETWORKS[name][:2]
        torch.manual_seed(0)
        network = settle(getattr(backbones, kind)(**arguments), (64, 64), 8)
        return export(network.eval(), tmp_path / f'{name}.onnx', input_size=(64, 64), **options).path

    return make


@pytest.mark.parametrize('name', [name if name == 'odconv' else pytest.param(name, marks=pytest.mark.slow)
                                  for name in NETWORKS])
def test_networks(name, float_graph, tmp_path):
    *_, convolutions, by_made_kernels = NETWORKS[name]
    source = float_graph(name)
    model = onnx.load(str(source))
    written = quantize(source, tmp_path / 'int8.onnx', images(16))
    result = onnx.load(str(written.path))
    onnx.checker.check_model(result)
    constant = {tensor.name for tensor in model.graph.initializer}
    constant_kernels = [node for node in model.graph.node if node.op_type == 'Conv' and node.input[1] in constant]
    assert written.convolutions <= len(constant_kernels)
    if convolutions is not None:
        assert written.convolutions == convolutions
    if by_made_kernels is not None:
        assert sum(node.op_type == 'Conv' and node.input[1] not in constant
                   for node in model.graph.node) == by_made_kernels
    producers = {output: node for node in result.graph.node for output in node.output}
    for node in result.graph.node:
        if node.name in written.left_out:
            assert all(producers[value].op_type != 'DequantizeLinear' or producers[value].input[0] in producers
                       for value in node.input if value in producers), node.name
    agreement = compare(load_onnx(source), load_onnx(written.path), images(24)[16:])
    # kernels of positions that have learned nothing square what is rounded, block by block
    assert 0 < agreement.mean_difference < (1 if name in ('rednet', 'dcdc') else .2) and agreement.top1 is None


@pytest.mark.parametrize('options', [dict(batch=2), dict(dynamic=True)], ids=['fixed', 'dynamic'])
def test_several_images(options, float_graph, tmp_path):
    """The loop over images runs the same graph in INT8 as that for one image."""
    one = quantize(float_graph('odconv'), tmp_path / 'one.onnx', images(16))
    batches = [torch.cat(images(16)[i:i + 2]) for i in range(0, 16, 2)]
    several = quantize(float_graph('odconv', **options), tmp_path / 'several.onnx', batches)
    assert several.convolutions == one.convolutions and len(several.left_out) == len(one.left_out)
    onnx.checker.check_model(onnx.load(str(several.path)))
    batch = torch.cat(images(18)[16:])
    expected = [load_onnx(one.path)(image) for image in batch.split(1)]
    for values, *singles in zip(load_onnx(several.path)(batch), *expected):
        torch.testing.assert_close(values, torch.cat(singles), rtol=1e-4, atol=1e-4)


def test_what_stays_in_float():
    """Products of computed values, and what leads to them from averages; not the classifier behind its own average."""

    class Network(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
            self.fc = nn.Linear(3, 4 * 4)

        def forward(self, x):
            kernel = self.fc(x.mean((2, 3))).sigmoid().reshape(4, 4, 1, 1)
            return self.last(nn.functional.conv2d(self.conv(x).relu(), kernel).mean((2, 3)))

    path = export_plain(Network())
    kinds = [node.op_type for node in dynamic_nodes(path)]
    assert sorted(kinds) == ['Conv', 'Gemm', 'ReduceMean', 'Reshape', 'Sigmoid']


def export_plain(network: nn.Module):
    import io
    file = io.BytesIO()
    options = dict(dynamo=False) if hasattr(torch.compiler, 'is_exporting') else {}
    torch.onnx.export(network.eval(), (torch.randn(1, 3, 8, 8), ), file, opset_version=17, **options)
    return onnx.load_from_string(file.getvalue())


def test_classes_are_compared():
    same, other = [torch.eye(3)], [torch.tensor([[2., 0, 0], [0, 0, 2], [0, 0, 2]])]
    agreement = compare(lambda x: same, lambda x: other, [torch.zeros(3, 1)])
    assert agreement.top1 == pytest.approx(2 / 3) and agreement.difference == 2
    assert agreement.mean_difference == pytest.approx(5 / 3)


def test_refusals(float_graph, tmp_path):
    source = float_graph('static')
    out = tmp_path / 'int8.onnx'
    with pytest.raises(FileNotFoundError, match='no graph'):
        quantize(tmp_path / 'absent.onnx', out, images(2))
    (tmp_path / 'text.onnx').write_text('no graph')
    for arguments, words in (((tmp_path / 'text.onnx', out, images(2)), 'source must be an ONNX graph'),
                             ((source, source, images(2)), 'path must be a file'),
                             ((source, tmp_path, images(2)), 'path must be a file'),
                             ((source, out, []), 'images must hold some'),
                             ((source, out, [torch.zeros(1, 3, 64, 32)]), r'shape .* \[1, 3, 64, 64\], but have'),
                             ((source, out, [torch.zeros(2, 3, 64, 64)]), 'shape')):
        with pytest.raises(ExportError, match=words):
            quantize(*arguments)
    assert not out.exists() and load_onnx(source)(images(1)[0])


@pytest.mark.first_is_quick('backbone')
@pytest.mark.parametrize('backbone', ['ODConvResNet', 'RedNet'])
def test_the_tool(backbone, tiny_classifier, load_tool, tmp_path, capsys):
    pytest.importorskip('mmpretrain')
    config, checkpoint = tiny_classifier(backbone)
    tool, out = load_tool('quantize'), tmp_path / 'int8.onnx'
    tool.main([str(config), str(checkpoint), '--dataset', '--out', str(out)])
    text = capsys.readouterr().out
    assert 'on 3 other images' in text and 'convolutions in INT8' in text and 'the class is the same' in text
    assert len(load_onnx(out)(torch.zeros(1, 3, 32, 32))[0]) == 1
    with pytest.raises(SystemExit, match='there is no config'):
        tool.main(['absent.py', str(checkpoint), '--dataset', '--out', str(out)])
    with pytest.raises(SystemExit, match='2'):
        tool.main([str(config), str(checkpoint), '--out', str(out)])
    assert 'name images or folders, or give --dataset' in capsys.readouterr().err

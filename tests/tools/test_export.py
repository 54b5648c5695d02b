"""tools/model_converters/export.py writes a file and says what is in it, and turns errors into a line."""
import pytest

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('export')


@pytest.fixture
def config(root):
    pytest.importorskip('mmdet')
    return str(root / 'configs' / 'demo' / 'faster-rcnn_odconv1x-r18-thin_fpn_digits.py')


def test_backbone(tool, config, tmp_path, capsys):
    out = tmp_path / 'new' / 'backbone.onnx'
    tool.main([config, '--out', str(out), '--part', 'backbone', '--input-size', '32', '64'])
    shown = capsys.readouterr().out.splitlines()
    assert shown[:4] == ['settling 36 norms on 8 images of 32×64', 'running the network on 1 image of 32×64',
                         'writing onnx, opset 17, by the torchscript exporter',
                         'comparing with PyTorch on 1 image of 32×64, 1 image of 32×64']
    assert 'onnx (opset 17)' in shown[4] and 'outputs: feature_0, feature_1' in shown[4] and out.is_file()


@pytest.mark.parametrize(('options', 'message'), [
    (['--format', 'tflite'], 'format must be one of'),
    (['--part', 'neck'], "part must be 'model' or 'backbone'"),
    (['--input-size', '0', '0'], 'input_size must be two positive ints'),
])
def test_bad_options(options, message, tool, config, tmp_path):
    with pytest.raises(SystemExit, match=message):
        tool.main([config, '--out', str(tmp_path / 'out.onnx'), *options])
    assert not list(tmp_path.iterdir())


def test_bad_checkpoint(tool, config, tmp_path):
    (tmp_path / 'bad.pth').write_bytes(b'no checkpoint')
    with pytest.raises(SystemExit, match='bad.pth'):
        tool.main([config, str(tmp_path / 'bad.pth'), '--out', str(tmp_path / 'out.onnx')])
    with pytest.raises(SystemExit, match='there is no network'):
        tool.main(['no-such-network', '--out', str(tmp_path / 'out.onnx')])

"""A YOLO of ultralytics is trained, validated, used and exported with dynamic convolutions."""
from __future__ import annotations

import copy
import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dynconv_mm import Involution2d, ODConv2d, dynamicize

REASON = 'needs ultralytics, tested with 8.4.190: pip install ultralytics'
IMAGE = torch.linspace(0, 20, 3 * 64 * 64).sin().view(1, 3, 64, 64).abs()


@pytest.fixture(scope='module', autouse=True)
def ultralytics(tmp_path_factory):
    if importlib.util.find_spec('ultralytics') is None:
        pytest.skip(REASON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('YOLO_CONFIG_DIR', str(tmp_path_factory.mktemp('settings')))
        patch.setenv('YOLO_OFFLINE', 'true')
        patch.setenv('YOLO_AUTOINSTALL', 'false')
        yield __import__('ultralytics')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Eight images with a bright square each."""
    folder, rng = tmp_path_factory.mktemp('squares'), np.random.default_rng(0)
    (folder / 'images').mkdir()
    (folder / 'labels').mkdir()
    for index in range(8):
        image = rng.integers(0, 100, (64, 64, 3), np.uint8)
        image[16:40, 8 + index:32 + index] += 150
        Image.fromarray(image).save(folder / 'images' / f'{index}.png')
        box = f'{(20 + index) / 64} {28 / 64} {24 / 64} {24 / 64}'
        (folder / 'labels' / f'{index}.txt').write_text(f'{index % 2} {box}\n')
    path = folder / 'squares.yaml'
    path.write_text(f'path: {folder}\ntrain: images\nval: images\nnames: [even, odd]\n')
    return path


def odconvs(model: nn.Module) -> int:
    return sum(isinstance(module, ODConv2d) for module in model.modules())


@pytest.mark.parametrize('kernels', [1, 4])
def test_example(kernels, ultralytics, load_example, data, tmp_path):
    yolo = load_example('ultralytics_yolo').main([
        str(data), '--kernels', str(kernels), '--epochs', '1', '--imgsz', '64', '--batch', '4', '--device', 'cpu',
        '--project', str(tmp_path)])
    weights, = tmp_path.rglob('best.pt')
    trained = torch.load(weights, map_location='cpu', weights_only=False)['model'].float().eval()
    assert odconvs(trained) > 50 and trained.model[22].dfl.conv.weight.flatten().tolist() == [*range(16)]
    with torch.no_grad():
        expected = trained(IMAGE)[0]
        assert torch.isfinite(expected).all()
        fused = copy.deepcopy(trained).fuse(verbose=False)
        assert odconvs(fused) == odconvs(trained) and fused.is_fused()
        assert (fused(IMAGE)[0] - expected).abs().max() <= 1e-3 * expected.abs().max()
    assert len(yolo.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)) == 1
    onnxruntime = pytest.importorskip('onnxruntime')
    path, = tmp_path.rglob('best.onnx')
    session = onnxruntime.InferenceSession(path)
    y, = session.run(None, {session.get_inputs()[0].name: IMAGE.numpy()})
    assert np.abs(y - expected.numpy()).max() <= 1e-3 * expected.abs().max()


def test_training_goes_on_from_dynamic_weights(ultralytics, data, tmp_path):
    """Those of a model that is dynamic already, and of a static one."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    from dynconv_mm.adapters.ultralytics import dynamic_trainer
    kind = dynamic_trainer(op=dict(type='ODConv2d', kernel_num=2))
    assert issubclass(kind, DetectionTrainer)
    trainer = kind(overrides=dict(model='yolov8n.yaml', data=str(data), device='cpu', project=str(tmp_path)))
    static = ultralytics.YOLO('yolov8n.yaml').model
    first = trainer.get_model('yolov8n.yaml', verbose=False)
    again = trainer.get_model('yolov8n.yaml', first, verbose=False)
    for name, value in first.float().state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    started = trainer.get_model('yolov8n.yaml', static, verbose=False)
    assert odconvs(started) == odconvs(first)
    x = torch.randn(1, 16, 9, 9)
    with torch.no_grad():  # of a part, as the classes are others
        torch.testing.assert_close(started.model[1:3].eval()(x), static.float().model[1:3].eval()(x), rtol=1e-4,
                                   atol=1e-5)


@torch.no_grad()
def test_heads_are_dynamic_too_and_folding_is_right(ultralytics):
    import dynconv_mm.adapters.ultralytics  # noqa: F401  which makes it right
    model = ultralytics.YOLO('yolov8n.yaml').model.eval()
    report = dynamicize(model, op=dict(type='ODConv2d', kernel_num=2))
    assert set(report.kept.values()) == {'sees the image (3 input channels)', 'has its weight read by DFL'}
    model.model[4].m[0].cv1.conv = Involution2d(32, 32, 3)  # which takes no norm
    expected = model(IMAGE)[0]
    assert (model.fuse(verbose=False)(IMAGE)[0] - expected).abs().max() <= 1e-4 * expected.abs().max()

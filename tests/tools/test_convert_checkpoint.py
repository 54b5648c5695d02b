"""tools/model_converters/convert_checkpoint.py writes what configs load, says what it is, and refuses the rest."""
from __future__ import annotations

import os
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from dynconv_mm.conversion import read_checkpoint, to_released
from dynconv_mm.models import ODConvMobileNetV2


@pytest.fixture
def tool(load_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_tool('convert_checkpoint')


@pytest.fixture
def official(released_shapes, tmp_path):
    """A file as the official code of a release saves it, with random weights."""

    def make(name: str, **more):
        torch.manual_seed(0)
        weights = {f'module.{key}': torch.rand(shape) if shape else torch.tensor(7)
                   for key, shape in released_shapes(name).items()}
        path = tmp_path / f'{name}.pth.tar'
        torch.save(dict(epoch=150, state_dict=weights, acc=torch.tensor(70.), best_acc=torch.tensor(70.5),
                        optimizer=dict(state={0: dict(momentum_buffer=torch.rand(9))}, param_groups=[]), **more), path)
        return path

    return make


@pytest.mark.parametrize(('release', 'name', 'words'), [
    ('odconv1x_mobilenetv2_050', 'odconv1x-mobilenet-v2-w050', 'ODConv MobileNetV2 of width 0.5, 1 kernel, 1000'),
    ('dcd_mobilenetv2_100', 'dcd-mobilenet-v2-w100', 'DCD MobileNetV2 of width 1, 1000 classes'),
])
def test_a_classifier_is_tested_with_it(tool, official, root, capsys, release, name, words):
    """In its default place, under the command that the report names."""
    pytest.importorskip('mmpretrain')
    source = official(release)
    tool.main([str(source)])
    told = capsys.readouterr().out
    config = f'configs/{name.partition("-")[0].rstrip("1x")}/{name}_8xb32_in1k.py'
    assert f'written: checkpoints/{name}.pth\n' in told and words in told
    assert f'mim test mmpretrain {config} --checkpoint checkpoints/{name}.pth\n' in told
    assert 'optimizer was left out' in told

    init_default_scope('mmpretrain')
    model = MODELS.build(Config.fromfile(root / config).model).eval()
    load_checkpoint(model, f'checkpoints/{name}.pth', map_location='cpu', strict=True)
    given = torch.load(source, weights_only=True)['state_dict']
    classifier = 'classifier.0.cls.weight' if name.startswith('dcd') else 'classifier.1.weight'
    fc = model.head.cls if name.startswith('dcd') else model.head.fc
    assert torch.equal(fc.weight, given[f'module.{classifier}'])
    assert torch.equal(model.backbone.conv1.conv.weight, given['module.features.0.0.weight'])
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 1000)

    tool.main([f'checkpoints/{name}.pth', '--reverse'])
    back = read_checkpoint(f'checkpoints/{name}_official.pth.tar')
    assert back['state_dict'].keys() == given.keys() and back['epoch'] == 150 and back['best_acc'] == 70.5
    assert all(torch.equal(back['state_dict'][key], value) for key, value in given.items())


def test_a_convnext_both_ways(tool, released_shapes, capsys):
    """KernelWarehouse keeps its weights under another name than the others do."""
    pytest.importorskip('mmpretrain')
    given = {name: torch.rand(shape) for name, shape in released_shapes('kw1x_convnext_tiny').items()}
    torch.save(dict(model=given, epoch=299), 'kw.pth')
    tool.main(['kw.pth'])
    tool.main(['checkpoints/kw1x-convnext-tiny.pth', 'back.pth', '--reverse'])
    told = capsys.readouterr().out
    assert told.count('KernelWarehouse ConvNeXt-T, 1000 classes') == told.count('39.37 M, ') == 2
    back = read_checkpoint('back.pth')
    assert back['epoch'] == 299 and back['model'].keys() == given.keys()
    assert all(torch.equal(back['model'][key], value) for key, value in given.items())


def test_a_detector_starts_from_it(tool, root, capsys):
    """The backbone of a detection config, from where the config looks for its checkpoint."""
    pytest.importorskip('mmdet')
    torch.manual_seed(0)
    backbone = ODConvMobileNetV2(kernel_num=1)
    weights = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    torch.save(to_released(weights, backbone_only=True).checkpoint, 'official.pth')
    tool.main(['official.pth', '--backbone-only'])
    told = capsys.readouterr().out
    assert re.search('start from it  faster-rcnn_odconv1x-mobilenet-v2_fpn_1x_coco, mask-rcnn_odconv1x', told)
    config = Config.fromfile(root / 'configs/odconv/faster-rcnn_odconv1x-mobilenet-v2_fpn_1x_coco.py')
    model = MODELS.build(config.model.backbone)
    model.init_weights()
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in model.state_dict().items())


def test_default_places_are_those_of_the_detection_configs(tool, root):
    """Of the methods that have official releases."""
    from dynconv_mm.conversion.architecture import Architecture
    wanted = {path for method in ('odconv', 'dcd', 'rednet') for config in (root / 'configs' / method).glob('*_coco.py')
              for path in re.findall(r"checkpoint='([^']*)'", config.read_text())}
    made = [*(Architecture('odconv', **size, kernel_num=n) for n in (1, 4)
              for size in (dict(depth=50), dict(widen_factor=1.0))),
            Architecture('dcd', depth=50), Architecture('dcd', widen_factor=1.0), Architecture('rednet', depth=50)]
    assert {tool.default_target(architecture, False).as_posix() for architecture in made} == wanted
    for architecture in made:
        assert (root / 'configs' / architecture.config).is_file()
    detector = Architecture('odconv', depth=50, kernel_num=4, detector='mask-rcnn', num_classes=80)
    assert tool.default_target(detector, False).as_posix() == 'checkpoints/mask-rcnn_odconv4x-r50_fpn_1x_coco.pth'


def test_what_no_config_has_is_described(tool, capsys):
    weights = {f'backbone.{key}': value
               for key, value in ODConvMobileNetV2(widen_factor=0.35, kernel_num=2).state_dict().items()}
    weights.update({'head.fc.weight': torch.ones(3, 1280), 'head.fc.bias': torch.ones(3)})
    torch.save(weights, 'mine.pth')
    tool.main(['mine.pth', 'out.pth', '--method', 'odconv'])
    told = capsys.readouterr().out
    assert 'ODConvMobileNetV2(widen_factor=0.35, kernel_num=2)' in told
    assert '2 kernels, 3 classes' in told and 'mim test' not in told


def refused(tool, *arguments: object) -> str:
    with pytest.raises(SystemExit) as raised:
        tool.main([str(argument) for argument in arguments])
    assert isinstance(raised.value.code, str)  # which Python prints, and exits with 1
    return raised.value.code


class Payload:

    def __reduce__(self):
        return os.mkdir, ('run', )


def test_bad_files(tool, official, tmp_path):
    """One message, and no file."""
    source = official('odconv1x_mobilenetv2_050')
    whole = source.read_bytes()
    for damage, words in ((whole[:len(whole) // 2], 'truncated'), (b'', 'truncated'), (b'hello', 'checkpoint')):
        source.write_bytes(damage)
        assert words in refused(tool, source)
    official('odconv1x_mobilenetv2_050', extra=Payload())
    assert 'could run code' in refused(tool, source)
    assert 'there is no checkpoint' in refused(tool, 'missing.pth')
    assert 'there is no checkpoint' in refused(tool, tmp_path)
    weights = torch.rand(3)
    torch.save({'layer1.0.conv1.weight': weights, 'conv1.weight': weights}, source)
    assert 'static ResNet' in refused(tool, source)
    assert list(tmp_path.iterdir()) == [source]


def test_a_partial_match(tool, official):
    source = official('odconv1x_mobilenetv2_050')
    checkpoint = torch.load(source, weights_only=True)
    del checkpoint['state_dict']['module.features.3.conv.2.weight']
    checkpoint['state_dict']['module.features.3.conv.2.bias'] = torch.ones(1)
    torch.save(checkpoint, source)
    message = refused(tool, source, 'out.pth')
    assert 'missing (1): backbone.layer2.1.conv.2.conv.weight' in message
    assert 'unexpected (1): backbone.layer2.1.conv.2.conv.bias' in message
    assert not os.path.exists('out.pth')


def test_targets(tool, official, tmp_path, capsys):
    source = official('odconv1x_mobilenetv2_050')
    before = source.read_bytes()
    (tmp_path / 'link.pth').symlink_to(source)
    for target in (source, 'link.pth'):
        assert 'same file' in refused(tool, source, target, '--overwrite')
    (tmp_path / 'there.pth').write_bytes(b'precious')
    assert 'add --overwrite' in refused(tool, source, 'there.pth')
    assert 'is a folder' in refused(tool, source, tmp_path)
    assert "whose method is 'odconv', not 'dcd'" in refused(tool, source, 'there.pth', '--overwrite', '--method', 'dcd')
    assert (tmp_path / 'there.pth').read_bytes() == b'precious' and source.read_bytes() == before
    tool.main([str(source), 'there.pth', '--overwrite'])
    assert 'head.fc.weight' in read_checkpoint('there.pth')['state_dict']


def test_options(tool, capsys):
    with pytest.raises(SystemExit) as raised:
        tool.main(['a.pth', '--method', 'dyconv'])
    assert raised.value.code == 2 and 'invalid choice' in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        tool.main(['--help'])
    told = capsys.readouterr().out
    assert raised.value.code == 0
    options = ('--method', 'auto,odconv,dcd,rednet,san,kw,fdconv,static', '--reverse', '--backbone-only', '--overwrite')
    assert all(word in told for word in ('SRC', 'DST', *options))


def test_as_a_command(official, run, root, tmp_path):
    source = official('odconv1x_mobilenetv2_050')
    source.write_bytes(source.read_bytes()[:1000])
    done = run('python', root / 'tools' / 'model_converters' / 'convert_checkpoint.py', source, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith('convert_checkpoint.py: ') and 'Traceback' not in done.stdout

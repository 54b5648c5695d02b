"""From a config and a static checkpoint to a file that a training starts from; bad input leaves nothing behind."""
from __future__ import annotations

import os

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from dynconv_mm.conversion import read_checkpoint, static_counterpart

pytest.importorskip('mmpretrain')

THIN = 'depth=18, stem_channels=8, base_channels=8'
CLASSIFIER = f"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['dynconv_mm'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ODConvResNet', kernel_num=2, {THIN}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=64))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01))
"""


@pytest.fixture
def tool(load_tool):
    return load_tool('warm_start')


@pytest.fixture
def write_config(tmp_path):

    def write(text: str = CLASSIFIER, name: str = 'config.py') -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def make_static(config: str) -> nn.Module:
    """The static counterpart of a config's model, with random weights and statistics."""
    torch.manual_seed(1)
    config = Config.fromfile(config)
    init_default_scope(config.default_scope)
    static = static_counterpart(MODELS.build(config.model))
    for name, value in static.state_dict().items():
        if value.dim() == 1 and value.is_floating_point():
            nn.init.uniform_(value, .5, 1.5) if name.endswith(('weight', 'var')) else nn.init.normal_(value, std=.1)
    return static.eval()


@pytest.fixture
def files(tmp_path, write_config) -> list[str]:
    """A config, a static checkpoint that fits it, and a file to write."""
    config = write_config()
    torch.save(dict(state_dict=make_static(config).state_dict(),
                    meta=dict(dataset_meta=dict(classes=list('abcdefg')), epoch=3)), tmp_path / 'static.pth')
    return [config, str(tmp_path / 'static.pth'), str(tmp_path / 'dst.pth')]


def test_a_classifier(tool, files, capsys):
    tool.main(files)
    printed = capsys.readouterr().out
    for words in ('static.pth: model of OpenMMLab', 'carried: backbone, a ODConvResNet: 0.18M parameters became 0.37M',
                  'carried: head, a LinearClsHead', 'the same function: on random images the outputs differ by at most',
                  f'--cfg-options load_from={files[2]}'):
        assert words in printed
    assert 'freeze_attention' not in printed and 'not carried' not in printed
    model = MODELS.build(Config.fromfile(files[0]).model).eval()
    load_checkpoint(model, files[2], strict=True)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        difference = model(image, mode='tensor') - make_static(files[0])(image, mode='tensor')
    assert difference.abs().max() <= 1e-5
    kernels = model.backbone.layer1[0].conv1.weight
    assert not kernels[0].equal(kernels[1])
    assert read_checkpoint(files[2])['meta'] == dict(dataset_meta=dict(classes=list('abcdefg')))


@pytest.mark.parametrize(('optimizer', 'rate'), [('SGD', 128.), ('AdamW', 8.)])
def test_a_config_to_train_with(tool, files, write_config, tmp_path, optimizer, rate):
    """It inherits the other one, and mmengine's optimizers follow it."""
    config = write_config(CLASSIFIER.replace("'SGD'", f"'{optimizer}'").replace(THIN, f'{THIN}, frozen_stages=1'))
    (tmp_path / 'made').mkdir()
    tool.main([config, *files[1:], '--train-config', str(tmp_path / 'made' / 'train.py')])
    cfg = Config.fromfile(tmp_path / 'made' / 'train.py')
    assert cfg.load_from == files[2] and cfg.model.backbone.kernel_num == 2
    model = MODELS.build(cfg.model)
    assert model.backbone.freeze_attention is False
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    settings = {id(parameter): (group['lr'], group['weight_decay'])
                for group in optimizer.param_groups for parameter in group['params']}
    for layer in model.backbone.modules():
        if hasattr(layer, 'neutralize_attention'):
            if layer.weight.requires_grad:  # mmengine leaves frozen ones as they are
                assert settings[id(layer.weight)] == pytest.approx((.1 * rate, .01 / rate))
            assert settings[id(layer.attention.channel_fc.weight)] == (.1, .01)
    assert id(model.backbone.conv1.weight) not in settings  # frozen
    assert settings[id(model.head.fc.weight)] == (.1, .01)


def test_noise_and_seed(tool, files):
    made = []
    for options in ([], ['--seed', '1'], ['--seed', '0'], ['--noise', '0']):
        tool.main([*files, *options])
        made.append(read_checkpoint(files[2])['state_dict']['backbone.layer1.0.conv1.weight'])
    assert made[0].equal(made[2]) and not made[0].equal(made[1])
    assert made[3][0].equal(made[3][1])


def test_a_backbone_by_init_cfg(tool, files, write_config, capsys):
    """A config that names a checkpoint for its backbone, and freezes it, is told what to set."""
    config = write_config(CLASSIFIER.replace(THIN, THIN + """, frozen_stages=1, norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth')"""), 'frozen.py')
    tool.main([config, *files[1:], '--parts', 'backbone'])
    printed = capsys.readouterr().out
    assert f'--cfg-options model.backbone.init_cfg.checkpoint={files[2]} model.backbone.init_cfg.prefix=backbone. ' \
           'model.backbone.freeze_attention=False' in printed
    assert 'frozen_stages or norm_eval alone' in printed and 'not carried: head, it was not asked for' in printed
    assert not any(name.startswith('head') for name in read_checkpoint(files[2])['state_dict'])
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({option.partition('=')[0]: option.partition('=')[2] for option in
                         printed.partition('--cfg-options ')[2].splitlines()[0].split()[:2]})
    model = MODELS.build(cfg.model)
    model.init_weights()
    kernel = model.backbone.layer1[0].conv1.weight
    assert kernel.equal(read_checkpoint(files[2])['state_dict']['backbone.layer1.0.conv1.weight'])


def test_no_static_counterpart(tool, files, write_config, tmp_path, capsys):
    text = CLASSIFIER.replace('ODConvResNet', 'RedNet').replace(f'kernel_num=2, {THIN}', 'depth=26')
    torch.save(torchvision.models.resnet50(num_classes=7).state_dict(), tmp_path / 'r50.pth')
    tool.main([write_config(text.replace('in_channels=64', 'in_channels=2048'), 'rednet.py'),
               str(tmp_path / 'r50.pth'), files[2]])
    printed = capsys.readouterr().out
    for words in ('NOT the same function: 9 layers (Involution2d)', 'backbone.stem.1, backbone.layer1.0.conv2',
                  'as they were before', 'backbone.stem.0.conv.weight', 'not used of STATIC', 'backbone.conv1.weight'):
        assert words in printed
    written = read_checkpoint(files[2])['state_dict']
    shared = torch.load(tmp_path / 'r50.pth')['layer1.0.conv3.weight']
    assert written['backbone.layer1.0.conv3.weight'].equal(shared)


class Code:

    def __reduce__(self):
        return os.mkdir, ('made_by_a_checkpoint', )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(('spoil', 'words'), [
    (truncate, 'truncated'),
    (lambda path: torch.save(dict(state_dict=dict(a=torch.ones(1)), hook=Code()), path), 'could run code'),
    (lambda path: torch.save(torchvision.models.mobilenet_v2(num_classes=7).state_dict(), path),
     'do not fit the static backbone'),
    (lambda path: torch.save({'a.weight': torch.ones(1)}, path), 'no weights of a static ResNet'),
    (lambda path: path.unlink(), 'there is no checkpoint'),
], ids=['truncated', 'code', 'architecture', 'names', 'missing'])
@pytest.mark.parametrize('there', [True, False])
def test_bad_checkpoints(tool, files, tmp_path, monkeypatch, spoil, words, there):
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path / 'static.pth')
    if there:
        (tmp_path / 'dst.pth').write_bytes(b'mine')
    with pytest.raises(SystemExit) as refused:
        tool.main(files)
    assert words in str(refused.value.code)
    assert not (tmp_path / 'made_by_a_checkpoint').exists()
    assert (tmp_path / 'dst.pth').read_bytes() == b'mine' if there else not (tmp_path / 'dst.pth').exists()


def test_weights_that_are_no_numbers(tool, files, tmp_path):
    """The check of the outputs sees them, and nothing is written."""
    checkpoint = torch.load(files[1])
    checkpoint['state_dict']['backbone.layer2.0.conv1.weight'][0, 0, 0, 0] = float('nan')
    torch.save(checkpoint, files[1])
    with pytest.raises(SystemExit, match='differ by nan'):
        tool.main(files)
    assert not (tmp_path / 'dst.pth').exists()


@pytest.mark.parametrize(('text', 'words'), [
    (CLASSIFIER.replace('ODConvResNet', 'ResNet').replace('kernel_num=2, ', ''), 'a dynamic layer'),
    ("default_scope = 'mmpretrain'", 'has no model'),
    (CLASSIFIER.replace('ODConvResNet', 'ODConvNet'), 'ODConvNet is not in'),
    (CLASSIFIER.replace('depth=18', 'depth=19'), 'depth must be one of'),
], ids=['static', 'no model', 'unknown', 'depth'])
def test_bad_configs(tool, files, write_config, text, words):
    with pytest.raises(SystemExit) as refused:
        tool.main([write_config(text, 'bad.py'), *files[1:]])
    assert words in str(refused.value.code)


def test_bad_arguments(tool, files, tmp_path, capsys):
    config, static, dst = files
    for arguments, words in (([config, static, static], 'DST is STATIC'), (['nowhere.py', static, dst], 'nowhere.py'),
                             ([config, static, str(tmp_path)], 'is a folder')):
        with pytest.raises(SystemExit):
            tool.main(arguments)
        assert words in capsys.readouterr().err
    for options, words in ((['--noise', '-1'], 'noise must be'), (['--parts', 'neck'], 'parts must be out of')):
        with pytest.raises(SystemExit) as refused:
            tool.main([*files, *options])
        assert words in str(refused.value.code)

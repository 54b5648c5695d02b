"""tools/train.py and test.py run configs of mmpretrain and mmdet, shell scripts start them; old names of tools."""
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
OLD = sorted({path.name for path in ROOT.glob('tools/*/*.py')} & {path.name for path in ROOT.glob('tools/*.py')})


@pytest.fixture
def short(tiny_classifier, tmp_path):
    """A classifier's config without a line that imports this package, which trains for two iterations."""
    pytest.importorskip('mmpretrain')
    from mmengine.config import Config
    path, _ = tiny_classifier('ODConvResNet')
    config = Config.fromfile(path)
    config.pop('custom_imports')
    config.train_dataloader.update(batch_size=3, num_workers=0, persistent_workers=False)
    config.train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
    for loader in (config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    (tmp_path / 'short.py').write_text(config.pretty_text)
    return tmp_path / 'short.py'


@pytest.mark.slow
def test_a_classifier(run, short, tmp_path):
    work = tmp_path / 'work'
    trained = run('python', 'tools/train.py', short, '--work-dir', work, '--cfg-options',
                  'optim_wrapper.optimizer.lr=0.1')
    assert trained.returncode == 0, trained.stdout[-3000:]
    checkpoint = torch.load(work / 'epoch_1.pth', map_location='cpu', weights_only=False)
    assert checkpoint['meta']['iter'] == 2
    assert any('attention' in name for name in checkpoint['state_dict'])
    resumed = run('python', 'tools/train.py', short, '--work-dir', work, '--resume', '--cfg-options',
                  'train_cfg.max_epochs=2')
    assert resumed.returncode == 0 and 'resumed epoch: 1' in resumed.stdout, resumed.stdout[-3000:]
    tested = run('python', 'tools/test.py', short, work / 'epoch_2.pth', '--work-dir', tmp_path / 'test', '--out',
                 tmp_path / 'predictions.pkl', '--show-dir', tmp_path / 'drawn')
    assert tested.returncode == 0 and 'accuracy/top1' in tested.stdout, tested.stdout[-3000:]
    assert len(pickle.loads((tmp_path / 'predictions.pkl').read_bytes())) == 6
    assert len(list((tmp_path / 'drawn').rglob('*.png'))) > 0


def test_a_type_that_is_not_registered(load_tool, short, tmp_path):
    from mmengine.config import Config
    config = Config.fromfile(short)
    config.work_dir = str(tmp_path)
    config.model.backbone.type = 'ODConvRsNet'
    with pytest.raises(KeyError, match=r"ODConvRsNet is not in the .*; did you mean .*'ODConvResNet'"):
        load_tool('launch').build_runner(config)


def test_a_detector(run, digits, tmp_path):
    """What DumpDetResults keeps are the detections of every image."""
    pytest.importorskip('mmdet')
    config = tmp_path / 'detector.py'
    config.write_text(f"_base_ = '{ROOT}/configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py'\n"
                      f"train_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2, "
                      f"dataset=dict(data_root='{digits}/', indices=2))\n"
                      f"val_dataloader = test_dataloader = dict(num_workers=0, persistent_workers=False, "
                      f"dataset=dict(data_root='{digits}/'))\n"
                      f"val_evaluator = test_evaluator = dict(ann_file='{digits}/annotations/instances_val.json')\n"
                      "train_cfg = dict(max_epochs=1)\n")
    trained = run('python', 'tools/train.py', config, '--work-dir', tmp_path / 'work', '--quiet')
    assert trained.returncode == 0 and 'Checkpoints will be saved' in trained.stdout, trained.stdout[-3000:]
    log, = (tmp_path / 'work').glob('*/*.log')
    for long in ('optim_wrapper = dict(', 'System environment:', 'Hooks will be executed in the following order'):
        assert long in log.read_text() and long not in trained.stdout
    tested = run('python', 'tools/test.py', config, tmp_path / 'work' / 'epoch_1.pth', '--work-dir', tmp_path / 'test',
                 '--out', tmp_path / 'predictions.pkl')
    assert tested.returncode == 0, tested.stdout[-3000:]
    predictions = pickle.loads((tmp_path / 'predictions.pkl').read_bytes())
    assert len(predictions) == 4 and all('bboxes' in found['pred_instances'] for found in predictions)


@pytest.mark.parametrize('tool, arguments, message', [
    ('train', ['none.py'], 'none.py: there is no such config'),
    ('test', ['none.py', '{config}'], 'none.py: there is no such config'),
    ('test', ['{config}', 'none.pth', '--out', 'here.txt'], r'--out must be named \*.pkl'),
    ('test', ['{config}', 'none.pth'], "there is no checkpoint 'none.pth'"),
    ('train', ['{config}', '--resume', 'none.pth'], "there is no checkpoint 'none.pth'"),
    ('train', ['{config}', '--cfg-options', 'load_from=none.pth'], "there is no checkpoint 'none.pth'"),
    ('train', ['{config}', '--auto-scale-lr'], 'has no auto_scale_lr with a base_batch_size'),
])
def test_mistakes(load_tool, short, capsys, tool, arguments, message):
    with pytest.raises(SystemExit) as ended:
        load_tool(tool).main([argument.format(config=short) for argument in arguments])
    text = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
    assert re.search(message, text)


@pytest.mark.parametrize('tool, arguments', [('train', []), ('test', [__file__])])
def test_other_classes_than_the_data(load_tool, digits, tool, arguments):
    pytest.importorskip('mmdet')
    config = ROOT / 'configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py'
    loader = 'test_dataloader' if tool == 'test' else 'val_dataloader'
    for change, message in ((f"{loader}.dataset.metainfo.classes=('cat', 'zero')", "has 'cat', but"),
                            ('model.roi_head.bbox_head.num_classes=3', 'num_classes is 3, but')):
        with pytest.raises(SystemExit, match=message):
            load_tool(tool).main([str(config), *arguments, '--cfg-options', f'{loader}.dataset.data_root={digits}/',
                                  f'train_dataloader.dataset.data_root={digits}/', change])


def test_a_toolbox_that_is_not_installed(load_tool, tmp_path, monkeypatch):
    import mmengine.config
    (tmp_path / 'config.py').write_text("_base_ = 'nothing::fcn/fcn.py'\n")

    def missing(*args, **kwargs):
        raise ModuleNotFoundError('mmsegmentation is not installed, please install mmsegmentation manually')

    monkeypatch.setattr(mmengine.config.Config, 'fromfile', missing)
    with pytest.raises(SystemExit, match='config.py: mmsegmentation is not installed, please'):
        load_tool('train').main([str(tmp_path / 'config.py')])


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Programs that print how they are called, in place of python and srun."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    return lambda *command: subprocess.run(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, timeout=60)


@pytest.mark.parametrize('script, arguments, tool, ends', [
    ('dist_train', ['my config.py', '4', '--amp'], 'train', ['my config.py', '--launcher', 'pytorch', '--amp']),
    ('dist_test', ['c.py', 'c.pth', '4', '--out', 'a b.pkl'], 'test',
     ['c.py', 'c.pth', '--launcher', 'pytorch', '--out', 'a b.pkl']),
    ('slurm_train', ['gpus', 'job', 'c.py', 'work', '--amp'], 'train',
     ['c.py', '--work-dir', 'work', '--launcher', 'slurm', '--amp']),
    ('slurm_test', ['gpus', 'job', 'c.py', 'c.pth'], 'test', ['c.py', 'c.pth', '--launcher', 'slurm'])])
def test_scripts(fake, monkeypatch, script, arguments, tool, ends):
    monkeypatch.setenv('GPUS', '4')
    file = ROOT / 'tools' / f'{script}.sh'
    words = fake(file, *arguments).stdout.splitlines()
    place = words.index(f'{ROOT}/tools/{tool}.py')
    assert words[place + 1:] == ends
    assert words[0] == ('python' if script.startswith('dist') else 'srun')
    assert ('--nproc_per_node=4' if script.startswith('dist') else '--ntasks=4') in words[:place]
    assert fake(file).returncode == 2 and fake(file, '--help').returncode == 0
    assert f'tools/{script}.sh' in fake(file, '--help').stdout


def test_old_names(run):
    assert 'complexity.py' in OLD
    assert len({(ROOT / 'tools' / name).read_text() for name in OLD}) == 1  # one shim, under each name
    done = run('python', 'tools/make_digits_folders.py', '--help')
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == ('make_digits_folders.py has moved to tools/dataset_converters/'
                                           'make_digits_folders.py; this name goes with the next release')
    assert 'usage: make_digits_folders.py' in done.stdout


@pytest.mark.parametrize('tool', sorted(path.stem for path in (
    *ROOT.glob('tools/*/*.py'), *ROOT.glob('scripts/*.py'), ROOT / 'tools/train.py', ROOT / 'tools/test.py')
    if os.access(path, os.X_OK)))
def test_help(load_tool, capsys, monkeypatch, tool):
    """Each says what it is for, and lists its options."""
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', '--help'])
    with pytest.raises(SystemExit) as ended:
        load_tool(tool).main()
    usage, description, options, *_ = capsys.readouterr().out.split('\n\n')
    assert ended.value.code == 0
    assert usage.startswith(f'usage: {tool}.py') and len(description) > 40 and '-h, --help' in f'{options} {_}'

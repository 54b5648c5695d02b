"""The command lines that users type, on a handful of images."""
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
if importlib.util.find_spec('mim') is None:  # not imported: several workers at once would make its folder
    pytest.skip('needs openmim', allow_module_level=True)

pytestmark = pytest.mark.xdist_group('e2e')  # one worker: the training is shared

DEMO = 'configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py'
R50 = 'configs/odconv/faster-rcnn_odconv4x-r50_fpn_1x_coco.py'
FROM_SCRATCH = ('model.backbone.init_cfg=None', 'model.backbone.frozen_stages=-1', 'model.backbone.norm_eval=False')
EPOCHS = 3
DIGITS = '("zero","one","two","three","four","five","six","seven","eight","nine")'


def distribution(package: str) -> str:
    """The one that provides a package, by which mim finds it."""
    from importlib.metadata import packages_distributions
    return packages_distributions()[package][0]


MMDET = distribution('mmdet')

finds_packages = pytest.mark.skipif(
    MMDET.startswith('onedl'), reason='onedl-mim takes the first entry of a RECORD, here '
    'dynconv_mm-*.dist-info, for the folder of the package')


def data_options(digits: Path) -> list[str]:
    """--cfg-options that point a config to the small data set."""
    options = [f'val_evaluator.ann_file={digits}/annotations/instances_val.json',
               f'test_evaluator.ann_file={digits}/annotations/instances_val.json']
    for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = f'{loader}_dataloader.dataset'
        options += [f'{dataset}.data_root={digits}/', f'{dataset}.ann_file=annotations/instances_{split}.json',
                    f'{dataset}.data_prefix.img={split}/', f'{dataset}.metainfo.classes={DIGITS}',
                    f'{loader}_dataloader.num_workers=0',
                    f'{loader}_dataloader.persistent_workers=False', f'{loader}_dataloader.batch_size=2']
    return options


def train_command(config: str, work_dir: Path, *options: str, resume: bool = False) -> list[str]:
    return ['mim', 'train', MMDET, config, '--work-dir', str(work_dir), *(['--resume'] if resume else []),
            '--cfg-options', *options]


def losses(work_dir: Path) -> dict[int, tuple]:
    """Loss and gradient norm by iteration, over all runs logged in ``work_dir``, the last run's where several are."""
    values = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if 'loss' in entry:
                values[entry['step']] = entry['loss'], entry['grad_norm']
    return values


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory, request) -> Path:
    """The work folder of a short demo training, never interrupted."""
    work_dir = tmp_path_factory.mktemp('trained')
    command = train_command(DEMO, work_dir, *demo_options(digits))
    done = subprocess.run(command, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    return work_dir


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    return {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1'}


def demo_options(digits: Path) -> list[str]:
    return [*data_options(digits), f'train_cfg.max_epochs={EPOCHS}', f'train_cfg.val_interval={EPOCHS}',
            'default_hooks.logger.interval=1']


@pytest.mark.slow
def test_train_and_test(trained, digits, tmp_path, run):
    checkpoint = trained / f'epoch_{EPOCHS}.pth'
    done = run('mim', 'test', MMDET, DEMO, '--checkpoint', checkpoint, '--work-dir', tmp_path, '--cfg-options',
               *data_options(digits))
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'coco/bbox_mAP:' in done.stdout
    assert 'do not match exactly' not in done.stdout

    # and the report of it
    out = tmp_path / 'report'
    config = tmp_path / 'small.py'
    config.write_text(f"_base_ = '{Path(DEMO).resolve()}'\n"
                      f"test_dataloader = dict(dataset=dict(data_root='{digits}/'))\n")
    done = run(sys.executable, 'tools/analysis_tools/report_detections.py', config, checkpoint, '--test-dir',
               tmp_path, '--out', out, '--images', '2')
    assert done.returncode == 0, done.stdout[-3000:]
    page = (out / 'index.html').read_text()
    pictures = sorted(out.glob('*.png'))
    assert len(pictures) == 2 and all(f'src="{picture.name}"' in page for picture in pictures)


@pytest.mark.slow
def test_killed_and_resumed(trained, digits, tmp_path):
    """kill -9 in mid-epoch, then --resume: the losses of the uninterrupted run."""
    expected = losses(trained)
    assert len(expected) == 5 * EPOCHS
    options = demo_options(digits)
    process = subprocess.Popen(train_command(DEMO, tmp_path, *options), env=environment(), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while len(losses(tmp_path)) < 7:  # in the second of the epochs of 5 iterations
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    killed_at = max(losses(tmp_path))
    assert 7 <= killed_at < 5 * EPOCHS
    done = subprocess.run(train_command(DEMO, tmp_path, *options, resume=True), env=environment(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'resumed epoch: ' in done.stdout
    assert losses(tmp_path) == expected


@pytest.mark.slow
def test_a_config_for_coco_trains_on_other_data(digits, tmp_path, run):
    """Mask R-CNN's data and evaluation too: polygons and RLE."""
    config = 'configs/odconv/mask-rcnn_odconv1x-mobilenet-v2_fpn_1x_coco.py'
    done = run(*train_command(config, tmp_path, *data_options(digits), *FROM_SCRATCH, 'train_cfg.max_epochs=1',
                              'randomness.seed=0', 'optim_wrapper.optimizer.lr=1e-4',
                              'model.roi_head.bbox_head.num_classes=10', 'model.roi_head.mask_head.num_classes=10',
                              'model.test_cfg.rcnn.score_thr=0',  # so early, no score reaches the usual one
                              'train_dataloader.dataset.pipeline.2.scale=(160,128)',
                              'val_dataloader.dataset.pipeline.1.scale=(160,128)',
                              'train_dataloader.dataset.filter_cfg.min_size=1', 'default_hooks.logger.interval=1'))
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'loss_mask' in done.stdout
    assert 'coco/segm_mAP:' in done.stdout, done.stdout[-3000:]


@pytest.mark.parametrize('network', ['kw1x-r18-thin', 'fdconv-r18-thin'])
def test_a_classifier_learns(network, tmp_path, run, load_tool):
    """The loss falls within the first pictures, and with it KernelWarehouse's τ."""
    pytest.importorskip('mmpretrain')
    data = tmp_path / 'digits'
    load_tool('make_digits_folders').main([str(data)])
    for picture in (*sorted(data.glob('train/*/*.png'))[::2], *sorted(data.glob('val/*/*.png'))[9:]):
        picture.unlink()
    options = [f'{loader}_dataloader.{option}' for loader in ('train', 'val', 'test') for option in (
        f'dataset.data_root={data}', 'dataset.pipeline.1.scale=(32,32)', 'num_workers=0', 'persistent_workers=False')]
    options += [f'model.backbone.{option}' for option in ('num_stages=3', 'out_indices=(2,)', 'strides=(1,2,2)',
                                                          'dilations=(1,1,1)')] + ['model.head.in_channels=64']
    if network.startswith('kw'):
        options += ['custom_hooks.0.epochs=.5']  # of two
    done = run('mim', 'train', distribution('mmpretrain'), f'configs/demo/{network}_digits.py', '--work-dir',
               tmp_path / 'work', '--cfg-options', *options, 'train_cfg.max_epochs=2', 'param_scheduler=None',
               'default_hooks.logger.interval=1')
    assert done.returncode == 0, done.stdout[-3000:]
    log, = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in log.read_text().splitlines() if 'loss' in line]
    first, last = (sum(step['loss'] for step in part) / 5 for part in (steps[:5], steps[-5:]))
    assert len(steps) == 46 and last < .8 * first
    if network.startswith('kw'):
        temperatures = [step['temperature'] for step in steps]
        assert temperatures == pytest.approx([max(0, 1 - (step + 1) / 11.5) for step in range(46)])


DCDC_DEMOS = {  # and figures that its test gives, COCO's out of 1 and panoptic ones out of 100
    'retinanet': ['coco/bbox_mAP'],
    'mask-rcnn': ['coco/bbox_mAP', 'coco/segm_mAP'],
    'htc': ['coco/bbox_mAP', 'coco/segm_mAP'],
    'panoptic-fpn': ['coco_panoptic/PQ', 'coco_panoptic/PQ_th', 'coco_panoptic/SQ_st', 'coco_panoptic/sky_RQ'],
}


@pytest.mark.slow
@pytest.mark.parametrize('detector', DCDC_DEMOS)
def test_dcdc_demo(detector, digits, tmp_path, run):
    """Three iterations of training, a test, and for the panoptic one the report."""
    config, panoptic = f'configs/demo/{detector}_dcdc-r26-thin_dcdc-fpn_digits.py', detector == 'panoptic-fpn'
    val = digits / 'annotations' / ('panoptic_val' if panoptic else 'instances_val')
    options = [f'{loader}_dataloader.{option}' for loader in ('train', 'val', 'test') for option in (
        f'dataset.data_root={digits}/', 'num_workers=0', 'persistent_workers=False', 'batch_size=4')]
    for evaluator in ('val_evaluator', 'test_evaluator'):
        options += [f'{evaluator}.ann_file={val}.json', *([f'{evaluator}.seg_prefix={val}/'] if panoptic else [])]
    # so early, no score reaches the usual one
    options += ['model.test_cfg.score_thr=0' if detector == 'retinanet' else 'model.test_cfg.rcnn.score_thr=0']
    done = run(*train_command(config, tmp_path, *options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=2',
                              'default_hooks.logger.interval=1'))
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(losses(tmp_path)) == 3
    part = {'retinanet': 'loss_cls', 'mask-rcnn': 'loss_mask', 'htc': 'loss_semantic_seg', 'panoptic-fpn': 'loss_seg'}
    assert f'{part[detector]}:' in done.stdout

    checkpoint = tmp_path / 'epoch_1.pth'
    done = run('mim', 'test', MMDET, config, '--checkpoint', checkpoint, '--work-dir', tmp_path / 'test',
               '--cfg-options', *options)
    assert done.returncode == 0, done.stdout[-3000:]
    figures = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text())
    assert all(0 <= figures[name] <= (100 if panoptic else 1) for name in DCDC_DEMOS[detector]), figures

    if panoptic:
        small = tmp_path / 'small.py'
        small.write_text(f"_base_ = '{Path(config).resolve()}'\n"
                         f"test_dataloader = dict(dataset=dict(data_root='{digits}/'))\n"
                         f"test_evaluator = dict(ann_file='{val}.json', seg_prefix='{val}/')\n")
        done = run(sys.executable, 'tools/analysis_tools/report_detections.py', small, checkpoint, '--test-dir',
                   tmp_path / 'test', '--out', tmp_path / 'report', '--images', '2')
        assert done.returncode == 0, done.stdout[-3000:]
        page = (tmp_path / 'report' / 'index.html').read_text()
        assert page.count(' (PQ ') == 2 and '<td>foliage</td>' in page and '<th>SQ</th>' in page
        assert len(list((tmp_path / 'report').glob('*.png'))) == 2
        assert (tmp_path / 'report' / 'summary.txt').read_text() == f'PQ {figures["coco_panoptic/PQ"]:.1f}\n'


@pytest.mark.slow
def test_no_coco_folder(tmp_path, run):
    done = run(*train_command(R50, tmp_path, *FROM_SCRATCH, f'train_dataloader.dataset.data_root={tmp_path}/data/coco/',
                              'model.backbone.depth=18', 'model.neck.in_channels=[64,128,256,512]'))
    assert done.returncode != 0
    assert "No such file or directory: '" in done.stdout and 'data/coco/' in done.stdout  # as the README has it


@pytest.mark.slow
def test_missing_checkpoint(digits, tmp_path, run):
    done = run(*train_command(R50, tmp_path, *data_options(digits), 'model.backbone.init_cfg.checkpoint=none/such.pth',
                              'model.backbone.depth=18', 'model.neck.in_channels=[64,128,256,512]'))
    assert done.returncode != 0
    assert "is to start from 'none/such.pth', which does not exist" in done.stdout
    assert 'model.backbone.init_cfg=None' in done.stdout


@pytest.mark.slow
def test_checkpoint_of_another_architecture(trained, digits, tmp_path, run):
    config, checkpoint = tmp_path / 'config.py', trained / f'epoch_{EPOCHS}.pth'
    config.write_text(f"_base_ = '{Path(DEMO).resolve()}'\n"
                      'model = dict(backbone=dict(kernel_num=2, init_cfg=dict(_delete_=True,\n'
                      f"    type='Pretrained', checkpoint='{checkpoint}', prefix='backbone.')))\n")
    done = run(*train_command(config, tmp_path, *data_options(digits)))
    assert done.returncode != 0
    assert 'the checkpoint does not fit this ODConvResNet' in done.stdout
    assert 'use the config that it was trained with' in done.stdout


@finds_packages
def test_download(run, tmp_path):
    """mim says, in the middle of its own error, why there is nothing to download."""
    done = run('mim', 'download', 'dynconv_mm', '--config', 'odconv4x-resnet50_8xb32_in1k', '--dest', tmp_path)
    assert done.returncode != 0 and 'No weights are published with dynconv_mm: its README says' in done.stdout


@finds_packages
def test_search_finds_the_configs(run):
    done = run('mim', 'search', 'dynconv_mm', '--model', 'odconv')
    assert done.returncode == 0, done.stdout[-3000:]
    assert 'config id: odconv4x-resnet50_8xb32_in1k' in done.stdout
    assert 'top_1_accuracy_(odconv_paper)' in done.stdout
    done = run('mim', 'search', 'dynconv_mm', '--model', 'odconv', '--field', 'config')  # wide columns cut it off
    assert 'configs/odconv/odconv4x-resnet50_8xb32_in1k.py' in done.stdout

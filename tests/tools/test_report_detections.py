"""Bad input; drawing itself is tested after a training, in tests/e2e."""
import json
import re

import pytest

from dynconv_mm.analysis import detection_report


@pytest.fixture
def tool(load_tool):
    return load_tool('report_detections')


@pytest.fixture
def arguments(tmp_path):
    for name in ('config.py', 'checkpoint.pth'):
        (tmp_path / name).touch()
    return [str(tmp_path / 'config.py'), str(tmp_path / 'checkpoint.pth'), '--test-dir', str(tmp_path / 'test'),
            '--out', str(tmp_path / 'out')]


@pytest.mark.parametrize('change, message', [
    (['--images', '0'], '--images must be at least 1'),
    (['--examine', '0'], '--examine must be at least 1'),
    (['--scale', '0'], '--scale must be at least 1'),
    (['--score-thr', '1.5'], '--score-thr must be from 0 to 1'),
])
def test_bad_option(tool, arguments, change, message, capsys):
    with pytest.raises(SystemExit):
        tool.main(arguments + change)
    assert message in capsys.readouterr().err


def test_missing_file(tool, arguments, capsys):
    with pytest.raises(SystemExit):
        tool.main(['none.py', *arguments[1:]])
    assert 'none.py does not exist' in capsys.readouterr().err


def test_foreign_folder_is_left_alone(tool, arguments, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('mine')
    with pytest.raises(SystemExit):
        tool.main(arguments)
    assert 'is no report of this tool' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'mine.txt').read_text() == 'mine'


def test_no_metrics(tool, arguments):
    with pytest.raises(SystemExit, match='no COCO metrics below'):
        tool.main(arguments)


def test_metrics(tool, tmp_path):
    values = {f'coco/{kind}_{name}': value for kind, value in (('bbox', 0.5), ('segm', 0.25))
              for name in tool.METRICS.values()}
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'metrics.json').write_text(json.dumps({**values, 'coco/bbox_mAP_l': -1.0}))
    (tmp_path / 'scalars.json').write_text('{"a": 1}\n{"b": 2}\n')
    assert tool.read_metrics(tmp_path) == [['', 'AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large'],
                                           ['boxes', '0.500', '0.500', '0.500', '0.500', '0.500', '–'],
                                           ['masks', '0.250', '0.250', '0.250', '0.250', '0.250', '0.250']]
    (tmp_path / 'run' / 'metrics.json').write_text(json.dumps(
        {name: value for name, value in values.items() if 'bbox' in name}))
    assert [row[0] for row in tool.read_metrics(tmp_path)] == ['', 'boxes']


def test_panoptic_metrics(tool, tmp_path):
    values = {'coco/bbox_mAP': 0.1}
    for place, name in enumerate(('{}', '{}_th', '{}_st', 'sky_{}', 'six_{}')):
        values.update({f'coco_panoptic/{name.format(ratio)}': 10. * place + column
                       for column, ratio in enumerate(('PQ', 'SQ', 'RQ'))})
    values['coco_panoptic/six_SQ'] = float('nan')
    (tmp_path / 'metrics.json').write_text(json.dumps(values))
    assert tool.read_metrics(tmp_path) == [
        ['', 'PQ', 'SQ', 'RQ'], ['all', '0.0', '1.0', '2.0'], ['things', '10.0', '11.0', '12.0'],
        ['stuff', '20.0', '21.0', '22.0'], ['sky', '30.0', '31.0', '32.0'], ['six', '40.0', '–', '42.0']]


@pytest.mark.parametrize('titles, row, line', [(['', 'AP', 'AP50'], ['boxes', '0.500', '0.7'], 'AP 0.500'),
                                               (['', 'PQ', 'SQ'], ['all', '42.6', '70.1'], 'PQ 42.6')])
def test_headline(tool, titles, row, line):
    assert tool.headline(titles, [row, ['', '', '']]) == line


@pytest.fixture
def untrained(root, digits, tmp_path):
    """A demo's detector as arguments of the tool: its config with the small data set, initial weights, results."""
    def make(name: str, metrics: dict[str, float]) -> list[str]:
        from mmengine.config import Config
        from mmengine.registry import MODELS, init_default_scope

        from dynconv_mm.conversion import write_checkpoint
        config = Config.fromfile(root / f'configs/demo/{name}_digits.py')
        init_default_scope(config.default_scope)
        config.test_dataloader.dataset.data_root = str(digits)
        for key in ('ann_file', 'seg_prefix'):
            if key in config.test_evaluator:
                config.test_evaluator[key] = config.test_evaluator[key].replace('data/digits', str(digits))
        config.model.test_cfg.rcnn.score_thr = 0.
        config.dump(tmp_path / f'{name}.py')
        write_checkpoint(tmp_path / f'{name}.pth', dict(state_dict=MODELS.build(config.model).state_dict(), meta=dict(
            dataset_meta=dict(classes=config.test_dataloader.dataset.metainfo.classes))))
        (tmp_path / name).mkdir()
        (tmp_path / name / 'metrics.json').write_text(json.dumps(metrics))
        return [str(tmp_path / f'{name}.py'), str(tmp_path / f'{name}.pth'), str(tmp_path / name)]

    return make


BOXES = {f'coco/bbox_{name}': 0.5 for name in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')}
MASKS = {name.replace('bbox', 'segm'): 0.25 for name in BOXES}


def side_by_side(tool, tmp_path, first: list[str], *others: list[str]) -> tuple[str, list]:
    """The page and the pictures."""
    from PIL import Image
    config, checkpoint, test_dir = first
    beside = [word for other in others for word in ('--beside', *other)]
    tool.main([config, checkpoint, '--test-dir', test_dir, *beside, '--out', str(tmp_path / 'out'), '--images', '2',
               '--score-thr', '0', '--scale', '2'])
    return ((tmp_path / 'out' / 'index.html').read_text(),
            [Image.open(file).copy() for file in sorted((tmp_path / 'out').glob('*.png'))])


def test_masks_and_boxes_side_by_side(tool, untrained, tmp_path):
    """As DCDC's Fig. 7: what is annotated, and each detector's own, with the metrics of all."""
    pytest.importorskip('mmdet')
    masks = untrained('mask-rcnn_dcdc-r26-thin_dcdc-fpn', {**BOXES, **MASKS})
    boxes = untrained('faster-rcnn_odconv1x-r18-thin_fpn', BOXES)
    page, pictures = side_by_side(tool, tmp_path, masks, boxes, masks)
    assert len(pictures) == 2 and all(picture.width > 3 * 2 * 100 for picture in pictures)
    errors = [sum(map(int, re.findall(r'(\d+) (?:missed|of another class|false)', caption.split(';')[0])))
              for caption in re.findall('<figcaption>(mask-rcnn.*?)</figcaption>', page) if ';' in caption]
    assert len(errors) == 2 and errors == sorted(errors, reverse=True) and errors[-1] > 0
    assert page.count('FasterRCNN, backbone ODConvResNet') == 1 and page.count('<th>found as another</th>') == 3
    for cell in ('detector', 'mask-rcnn_dcdc-r26-thin_dcdc-fpn (1)', 'faster-rcnn_odconv1x-r18-thin_fpn',
                 'mask-rcnn_dcdc-r26-thin_dcdc-fpn (2)'):
        assert f'>{cell}<' in page
    assert page.count('<td>masks</td>') == 2 and page.count('<td>boxes</td>') == 3
    assert (tmp_path / 'out' / 'summary.txt').read_text() == 'AP 0.500\n'


def test_a_checkpoint_of_another_network(tool, untrained, tmp_path):
    """It is refused: mmdet would draw what a partly random network finds."""
    pytest.importorskip('mmdet')
    config, _, test_dir = untrained('faster-rcnn_odconv1x-r18-thin_fpn', BOXES)
    _, checkpoint, _ = untrained('mask-rcnn_dcdc-r26-thin_dcdc-fpn', BOXES)
    with pytest.raises(SystemExit, match=r'the weights do not fit .*faster-rcnn_odconv1x.*\n  missing'):
        tool.main([config, checkpoint, '--test-dir', test_dir, '--out', str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


def test_annotated_masks_are_drawn(digits, root):
    """Those of the annotation file."""
    pytest.importorskip('mmdet')
    from mmdet.registry import DATASETS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    config = Config.fromfile(root / 'configs/demo/mask-rcnn_dcdc-r26-thin_dcdc-fpn_digits.py')
    init_default_scope(config.default_scope)
    dataset = DATASETS.build(dict(config.test_dataloader.dataset, data_root=str(digits)))
    info = dataset.get_data_info(0)
    masks = detection_report.annotated_masks(info)
    assert masks.shape == (len(info['instances']), info['height'], info['width'])
    for mask, instance in zip(masks, info['instances']):
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert all(abs(a - b) <= 2 for a, b in zip(extent, instance['bbox'])), (extent, instance)


def test_panoptic_side_by_side(tool, untrained, tmp_path):
    pytest.importorskip('mmdet')
    metrics = {f'coco_panoptic/{ratio}{part}': 10. for ratio in ('PQ', 'SQ', 'RQ') for part in ('', '_th', '_st')}
    panoptic = untrained('panoptic-fpn_dcdc-r26-thin_dcdc-fpn', metrics)
    page, pictures = side_by_side(tool, tmp_path, panoptic, panoptic)
    assert len(pictures) == 2 and page.count(' (PQ ') == 2 and '<th>RQ</th>' in page


def test_other_metrics_are_not_compared(tool, arguments, tmp_path):
    for name, metrics in (('test', BOXES), ('other', {f'coco_panoptic/{ratio}{part}': 1. for ratio in tool.RATIOS
                                                      for part in ('', '_th', '_st')})):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'metrics.json').write_text(json.dumps(metrics))
    with pytest.raises(SystemExit, match='--beside takes detectors with the same metrics, but .* has AP, .* has PQ'):
        tool.main([*arguments, '--beside', *arguments[:2], str(tmp_path / 'other')])

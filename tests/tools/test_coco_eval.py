"""The command line; the figures themselves are tested in tests/evaluation/test_saved_results.py."""
import json
import re

import pytest

IMAGE = dict(id=5, height=20, width=30, file_name='5.png')
ANNOTATIONS = dict(
    images=[IMAGE], categories=[dict(id=1, name='left|right')],
    annotations=[dict(id=1, image_id=5, category_id=1, bbox=[2, 3, 10, 12], area=120, iscrowd=0,
                      segmentation=[[2, 3, 12, 3, 12, 15, 2, 15]])])
FOUND = dict(image_id=5, category_id=1, score=0.9, bbox=[2, 3, 10, 12])


@pytest.fixture
def tool(load_tool):
    return load_tool('coco_eval')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Annotations and the results of two detectors, one of them with masks."""
    from pycocotools import mask as coco_mask
    polygon = coco_mask.merge(coco_mask.frPyObjects(ANNOTATIONS['annotations'][0]['segmentation'], 20, 30))
    mask = dict(size=[20, 30], counts=polygon['counts'].decode())
    (tmp_path / 'ann.json').write_text(json.dumps(ANNOTATIONS))
    (tmp_path / 'good.bbox.json').write_text(json.dumps([FOUND]))
    (tmp_path / 'good.segm.json').write_text(json.dumps([dict(FOUND, segmentation=mask)]))
    (tmp_path / 'bad.bbox.json').write_text('[]')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables(tool, folder, capsys):
    tool.main(['good', 'bad.bbox.json', 'ann.json', '--classwise', '--out', 'tables.md'])
    assert folder.joinpath('tables.md').read_text().splitlines() == [
        '## Boxes', '',
        '|  | AP | AP50 | AP75 | AP_S | AP_M | AP_L |', '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
        '| good | 100.0 | 100.0 | 100.0 | 100.0 | – | – |', '| bad | 0.0 | 0.0 | 0.0 | 0.0 | – | – |', '',
        '## Boxes of good, by category', '',
        '|  | AP | AP50 | AP75 | AP_S | AP_M | AP_L |', '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
        r'| left\|right | 100.0 | 100.0 | 100.0 | 100.0 | – | – |', '',
        '## Boxes of bad, by category', '',
        '|  | AP | AP50 | AP75 | AP_S | AP_M | AP_L |', '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
        r'| left\|right | 0.0 | 0.0 | 0.0 | 0.0 | – | – |', '',
        '## Masks', '',
        '|  | AP | AP50 | AP75 | AP_S | AP_M | AP_L |', '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
        '| good | 100.0 | 100.0 | 100.0 | 100.0 | – | – |', '',
        '## Masks of good, by category', '',
        '|  | AP | AP50 | AP75 | AP_S | AP_M | AP_L |', '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
        r'| left\|right | 100.0 | 100.0 | 100.0 | 100.0 | – | – |', '',
        'Note: bad.bbox.json has no detections at all.']
    shown = capsys.readouterr().out
    assert re.search(r'good +│ +100\.0 │', shown) and 'no detections at all' in shown


def test_names_and_metric(tool, folder, capsys):
    tool.main(['good.bbox.json', 'good.segm.json', 'ann.json', '--metric', 'segm', '--names', 'Mask R-CNN'])
    shown = capsys.readouterr().out
    assert 'Mask R-CNN' in shown and 'Masks' in shown and 'Boxes' not in shown


def test_file_of_another_name(tool, folder, capsys):
    (folder / 'good.segm.json').rename(folder / 'theirs.json')
    tool.main(['theirs.json', 'ann.json', '--metric', 'bbox', 'segm'])
    shown = capsys.readouterr().out
    assert len(re.findall(r'theirs +│ +100\.0 │', shown)) == 2


def test_panoptic(tool, digits, tmp_path, capsys):
    """The annotations themselves, as predictions, are found whole."""
    ann_file = digits / 'annotations' / 'panoptic_val.json'
    (tmp_path / 'own.panoptic').symlink_to(ann_file.with_suffix(''))
    (tmp_path / 'own.panoptic.json').write_text(ann_file.read_text())
    tool.main([str(tmp_path / 'own'), str(ann_file), '--names', 'own'])
    assert re.search(r'own +│ +100\.0 │ +100\.0 │ +100\.0', capsys.readouterr().out)
    (tmp_path / 'ann.json').write_text(ann_file.read_text())
    with pytest.raises(SystemExit, match=r'no folder .*ann'):
        tool.main([str(tmp_path / 'own'), str(tmp_path / 'ann.json')])
    tool.main([str(tmp_path / 'own'), str(tmp_path / 'ann.json'), '--seg-dir', str(ann_file.with_suffix(''))])


@pytest.mark.parametrize('arguments, message', [
    (['none', 'ann.json'], "coco_eval: there is no file 'none', and none named none.bbox.json"),
    (['none.bbox.json', 'ann.json'], "there is no file 'none.bbox.json'"),
    (['good', 'none.json'], "there is no file 'none.json'"),
    (['good', 'good.bbox.json'], 'good.bbox.json is no annotation file'),
    (['bad', 'ann.json', '--metric', 'segm'], 'no results for segm'),
    (['good', 'ann.json', '--metric', 'panoptic'], 'annotations of instances, and panoptic needs'),
    (['good', 'bad', 'ann.json', '--names', 'one'], '--names must be as many as the rows, 2'),
])
def test_bad_arguments(tool, folder, arguments, message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        tool.main(arguments)


def test_a_failure_writes_nothing(tool, folder):
    (folder / 'bad.bbox.json').write_text(json.dumps([dict(FOUND, image_id=6)]))
    with pytest.raises(SystemExit, match=r'bad\.bbox\.json has results of images .*, 6:'):
        tool.main(['good', 'bad', 'ann.json', '--out', 'tables.md'])
    assert not (folder / 'tables.md').exists()

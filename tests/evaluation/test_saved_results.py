"""Figures of saved predictions are those of mmdet's metrics, and what cannot be evaluated is refused."""
import json
from math import isnan

import numpy as np
import pytest
import torch

from dynconv_mm.datasets.panoptic_png import encode_panoptic_png, read_panoptic_png
from dynconv_mm.evaluation import PanopticQualityMetric
from dynconv_mm.evaluation.saved_results import (
    BOX_COLUMNS,
    evaluate_detections,
    evaluate_panoptic,
    read_annotations,
    read_results,
)

MMDET_NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
BOX = dict(image_id=11, category_id=3, score=0.5, bbox=[1., 2., 30., 40.])


@pytest.fixture(scope='module')
def mmdet_run(coco_set, tmp_path_factory):
    """What mmdet's metric computes and writes in the test of a detector with masks."""
    metrics = pytest.importorskip('mmdet.evaluation')
    ann_file, predictions = coco_set
    prefix = tmp_path_factory.mktemp('run') / 'ours'
    metric = metrics.CocoMetric(str(ann_file), metric=['bbox', 'segm'], classwise=True, outfile_prefix=str(prefix))
    metric.dataset_meta = dict(classes=[category['name'] for category in read_annotations(ann_file)['categories']])
    for image_id, found in predictions.items():
        height, width = found['masks'].shape[1:]
        instances = {name: torch.from_numpy(value) for name, value in found.items()}
        metric.process({}, [dict(img_id=image_id, ori_shape=(height, width), pred_instances=instances)])
    return prefix, metric.evaluate(len(predictions))


@pytest.mark.parametrize('metric', ['bbox', 'segm'])
def test_figures_are_those_of_mmdet(coco_set, mmdet_run, metric):
    prefix, theirs = mmdet_run
    ours = evaluate_detections(f'{prefix}.{metric}.json', metric, read_annotations(coco_set[0]))
    assert [round(ours.figures[column], 6) for column in BOX_COLUMNS] \
        == [round(100 * theirs[f'coco/{metric}_{name}'], 6) for name in MMDET_NAMES]
    assert len(set(ours.figures.values())) == len(BOX_COLUMNS)  # no two are mixed up unseen
    assert all(0 < figure < 100 for figure in ours.figures.values())
    assert not ours.notes
    if metric == 'segm':  # under the same names those of the last metric remain
        assert {f'coco/{name}_precision': round(values['AP'] / 100, 3) for name, values in ours.by_category.items()} \
            == {name: value for name, value in theirs.items() if name.endswith('_precision')}


def test_hundred_detections_are_not_all(coco_set, mmdet_run):
    """The data set is one on which another maxDets gives other figures."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    truth = COCO(str(coco_set[0]))
    evaluation = COCOeval(truth, truth.loadRes(f'{mmdet_run[0]}.bbox.json'), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert round(evaluation.stats[1], 3) != mmdet_run[1]['coco/bbox_mAP_50']


def test_several_evaluations_do_not_touch_the_annotations(coco_set, mmdet_run):
    annotations = read_annotations(coco_set[0])
    first, _, third = (evaluate_detections(f'{mmdet_run[0]}.{metric}.json', metric, annotations)
                       for metric in ('segm', 'bbox', 'segm'))
    assert first == third


@pytest.mark.parametrize('metric', ['bbox', 'segm'])
def test_nothing_found(coco_set, write_results, metric):
    path = write_results([])
    evaluation = evaluate_detections(path, metric, read_annotations(coco_set[0]))
    assert set(evaluation.figures.values()) == {0.}
    assert evaluation.notes == [f'{path} has no detections at all']


def test_nothing_to_find(coco_set, write_results):
    annotations = read_annotations(coco_set[0])
    annotations['annotations'] = []
    assert all(map(isnan, evaluate_detections(write_results([BOX]), 'bbox', annotations).figures.values()))


@pytest.mark.parametrize('metric, content, message', [
    ('bbox', '[{', 'is no JSON'),
    ('bbox', dict(annotations=[]), 'holds no results: it is a dict'),
    ('bbox', [BOX, 3], 'detection 1 of .* is no record'),
    ('bbox', [dict(BOX, image_id=99)], 'results of images that the annotations do not have, 99:'),
    ('bbox', [dict(BOX, image_id=number) for number in range(9)], 'images .* 0, 1, 2, 3, 4 and 4 more'),
    ('bbox', [dict(BOX, category_id=1)], 'results of categories .*, 1: .* another data set'),
    ('bbox', [dict(BOX, category_id='x'), dict(BOX, category_id=1)], 'results of categories .*, 1, x:'),
    ('bbox', [dict(BOX, bbox=[1, 2, 3])], 'bbox of detection 0 .* left, top, width and height'),
    ('bbox', [dict(BOX, bbox=[1, 2, 3, float('nan')])], 'bbox of detection 0'),
    ('bbox', [dict(BOX, score='high')], "score of detection 0 .* but is 'high'"),
    ('bbox', [dict(image_id=11, bbox=[1, 2, 3, 4])], 'has no category_id and no score'),
    ('segm', [BOX], r'detection 0 .* has no mask .* \.segm\.json'),
    ('segm', [dict(BOX, segmentation=[[1, 2, 3, 4, 5, 6]])], 'must be of run lengths'),
    ('segm', [dict(BOX, segmentation=dict(size=[170, 150], counts='0'))], r'height and width \[170, 150\], but the '
     r'image 11 has \[150, 170\]'),
], ids=range(14))
def test_bad_results(coco_set, write_results, metric, content, message):
    path = write_results(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_results(path, metric, read_annotations(coco_set[0]))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize('content', ['no', [], dict(images=[], annotations=[]), dict(images=[], annotations=[],
                                                                                    categories=[])], ids=str)
def test_bad_annotations(write_results, content):
    path = write_results(content)
    with pytest.raises(ValueError, match=path.name):
        read_annotations(path)
    with pytest.raises(FileNotFoundError, match='none.json'):
        read_annotations(path.with_name('none.json'))


@pytest.fixture
def panoptic(digits, tmp_path):
    """Predictions as the metric writes them, with its figures: the annotations, in part moved or of another class."""
    ann_file = digits / 'annotations' / 'panoptic_val.json'
    content = read_annotations(ann_file)
    metric = PanopticQualityMetric(str(ann_file), str(ann_file.with_suffix('')), classwise=True,
                                   outfile_prefix=str(tmp_path / 'ours'))
    metric.dataset_meta = dict(classes=[category['name'] for category in content['categories']])
    rng = np.random.default_rng(0)
    for annotation in content['annotations']:
        ids = read_panoptic_png(ann_file.with_suffix('') / annotation['file_name'])
        labels = np.full(ids.shape, len(content['categories']))
        for number, segment in enumerate(annotation['segments_info'], 1):
            label = metric.label_of[segment['category_id']] if rng.random() < 0.7 else int(rng.integers(14))
            labels[np.roll(ids == segment['id'], rng.integers(0, 4, 2), (0, 1))] = label + 1000 * number
        metric.process({}, [dict(img_id=annotation['image_id'], img_path=annotation['file_name'],
                                 pred_panoptic_seg=dict(sem_seg=torch.from_numpy(labels)[None]))])
    return ann_file, tmp_path / 'ours.panoptic.json', metric.evaluate(len(content['annotations']))


def test_panoptic_figures_are_those_of_the_metric(panoptic):
    ann_file, path, theirs = panoptic
    ours = evaluate_panoptic(path, path.with_suffix(''), ann_file, ann_file.with_suffix(''))
    theirs = {name.partition('/')[2]: value for name, value in theirs.items()}
    assert 20 < ours.figures['PQ'] < 90
    by_category = {f'{name}_{ratio}': value for name, values in ours.by_category.items()
                   for ratio, value in values.items()}
    np.testing.assert_equal({**ours.figures, **by_category}, theirs)
    assert not ours.notes


@pytest.mark.parametrize('kept', [0, 2])
def test_images_without_panoptic_results(panoptic, kept):
    """They count as images with nothing but false negatives."""
    ann_file, path, _ = panoptic
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(annotations=content['annotations'][:kept])))
    fewer = evaluate_panoptic(path, path.with_suffix(''), ann_file, ann_file.with_suffix(''))
    assert f'has no segments of {4 - kept} of 4 images' in fewer.notes[0]
    for result in content['annotations'][kept:]:  # the same with empty PNGs
        result['segments_info'] = []
        (path.with_suffix('') / result['file_name']).write_bytes(encode_panoptic_png(np.zeros((128, 160), int)))
    path.write_text(json.dumps(content))
    emptied = evaluate_panoptic(path, path.with_suffix(''), ann_file, ann_file.with_suffix(''))
    np.testing.assert_equal(fewer._replace(notes=[]), emptied)
    assert (fewer.figures['PQ'] == 0) == (kept == 0)


@pytest.mark.parametrize('change, error, message', [
    (lambda content: content['annotations'][0].update(image_id=77), ValueError, 'images .*, 77:'),
    (lambda content: content['annotations'][0]['segments_info'][0].update(category_id=99), ValueError,
     'categories .*, 99:'),
    (lambda content: content['annotations'][0]['segments_info'].pop(), ValueError, 'of which .* says no category'),
    (lambda content: content['annotations'][0].update(file_name='none.png'), FileNotFoundError, 'none.png'),
    (lambda content: content.pop('annotations'), ValueError, 'holds no panoptic results'),
    (lambda content: content['annotations'][0].pop('segments_info'), ValueError, 'holds no panoptic results'),
], ids=['image', 'category', 'segment', 'png', 'annotations', 'segments_info'])
def test_bad_panoptic_results(panoptic, change, error, message):
    ann_file, path, _ = panoptic
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(error, match=message) as raised:
        evaluate_panoptic(path, path.with_suffix(''), ann_file, ann_file.with_suffix(''))
    assert str(path) in str(raised.value)


def test_missing_folder(panoptic):
    ann_file, path, _ = panoptic
    with pytest.raises(FileNotFoundError, match='nowhere'):
        evaluate_panoptic(path, 'nowhere', ann_file, ann_file.with_suffix(''))

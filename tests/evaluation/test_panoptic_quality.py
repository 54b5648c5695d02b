"""Panoptic quality against the definition, cases worked by hand, and the code of COCO's own evaluation."""
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mmengine.registry import METRICS
from PIL import Image

from dynconv_mm.datasets.panoptic_png import encode_panoptic_png
from dynconv_mm.evaluation import panoptic_quality as module
from dynconv_mm.evaluation.panoptic_quality import (
    INSTANCE_OFFSET,
    count_matches,
    panoptic_quality,
    split_segments,
    write_panoptic_results,
)

CATEGORIES = 3
SHAPE = (5, 7)


# Maps of few segments, so that many of them match, and the other map's, so that predictions are near the truth.
@st.composite
def images(draw):
    """An annotated map with its segments and a predicted map with its labels; one crowd of a category at most."""
    target = draw(arrays(int, SHAPE, elements=st.integers(0, 4)))
    noise = draw(arrays(int, SHAPE, elements=st.sampled_from([-1, -1, -1, 0, 1, 2, 3, 4])))
    prediction = np.where(noise >= 0, noise, target)
    label = st.integers(0, CATEGORIES - 1)
    segments, crowds = [], set()
    for segment_id in range(1, 5):
        if draw(st.integers(0, 5)) == 0:  # an id that no segment has
            continue
        category, crowd = draw(label), draw(st.booleans()) and draw(st.booleans())
        crowd = crowd and category not in crowds
        crowds |= {category} if crowd else set()
        segments.append((1000 * segment_id, category, crowd))
    near = {segment_id // 1000: category for segment_id, category, _ in segments}
    numbers = np.unique(prediction[prediction > 0])
    labels = [near.get(number, 0) if draw(st.integers(0, 3)) else draw(label) for number in numbers.tolist()]
    prediction = np.searchsorted(np.concatenate([[0], numbers]), prediction)
    return 1000 * target, segments, prediction, labels


def by_definition(target, segments, prediction, labels):
    """Sets of pixels; every pair of segments is tried."""
    def pixels(image, value):
        return {(int(y), int(x)) for y, x in zip(*np.nonzero(image == value))}

    statistics = np.zeros((CATEGORIES, 4))
    void = pixels(target, 0)
    annotated = [(pixels(target, segment_id), category, crowd) for segment_id, category, crowd in segments]
    predicted = [(pixels(prediction, number), category) for number, category in enumerate(labels, 1)]
    matched_annotated, matched_predicted = set(), set()
    for a, (theirs, category, crowd) in enumerate(annotated):
        for p, (ours, label) in enumerate(predicted):
            union = theirs | (ours - void)
            if crowd or label != category or not union or len(theirs & ours) / len(union) <= 0.5:
                continue
            assert a not in matched_annotated and p not in matched_predicted
            matched_annotated.add(a)
            matched_predicted.add(p)
            statistics[category, 0] += len(theirs & ours) / len(union)
            statistics[category, 1] += 1
    for p, (ours, label) in enumerate(predicted):
        ignored = void.union(*(theirs for theirs, category, crowd in annotated if crowd and category == label))
        if p not in matched_predicted and len(ours & ignored) / len(ours) <= 0.5:
            statistics[label, 2] += 1
    for a, (_, category, crowd) in enumerate(annotated):
        if a not in matched_annotated and not crowd:
            statistics[category, 3] += 1
    return statistics


@settings(max_examples=300, deadline=None)
@given(images())
def test_definition(image):
    np.testing.assert_allclose(count_matches(*image, CATEGORIES), by_definition(*image), rtol=0, atol=1e-12)


class Counts(defaultdict):
    """Like panopticapi's PQStat: statistics by category, which add up."""

    def __init__(self):
        super().__init__(lambda: SimpleNamespace(iou=0., tp=0, fp=0, fn=0))


def coco_counts(folder: Path, image, single_core) -> np.ndarray:
    """The statistics by ``pq_compute_single_core``, which reads files."""
    target, segments, prediction, labels = image
    # no id without segment in the annotation, as in COCO: the file's own areas count there
    areas = {segment_id: int((target == segment_id).sum()) for segment_id, _, _ in segments}
    for name, ids in (('target', target), ('prediction', prediction)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / '1.png').write_bytes(encode_panoptic_png(ids))
    annotation = dict(image_id=1, file_name='1.png', segments_info=[
        dict(id=segment_id, category_id=category, iscrowd=int(crowd), area=areas[segment_id])
        for segment_id, category, crowd in segments if areas[segment_id]])
    result = dict(image_id=1, file_name='1.png', segments_info=[
        dict(id=number, category_id=label) for number, label in enumerate(labels, 1)])
    statistics = single_core(0, [(annotation, result)], str(folder / 'target'), str(folder / 'prediction'),
                             {category: {} for category in range(CATEGORIES)})
    return np.array([[statistics[category].iou, statistics[category].tp, statistics[category].fp,
                      statistics[category].fn] for category in range(CATEGORIES)])


def several_crowds(image, crowd_ids):
    """The image with other crowds: of a category there may now be several."""
    target, segments, prediction, labels = image
    return target, [(segment_id, category, segment_id // 1000 in crowd_ids) for segment_id, category, _ in segments
                    if (target == segment_id).any()], prediction, labels


@pytest.fixture(params=['mmdet', 'panopticapi'])
def single_core(request, monkeypatch):
    """COCO's own evaluation of an image: panopticapi where it is installed, and mmdet's copy of it."""
    if request.param == 'panopticapi':
        return pytest.importorskip('panopticapi.evaluation').pq_compute_single_core
    functional = pytest.importorskip('mmdet.evaluation.functional.panoptic_utils')
    monkeypatch.setattr(functional, 'PQStat', Counts)
    monkeypatch.setattr(functional, 'rgb2id', lambda colours: colours.astype(np.int32) @ [1, 256, 65536])
    return functional.pq_compute_single_core


def test_as_coco_evaluates(single_core, tmp_path):
    @settings(max_examples=150, deadline=None)
    @given(images(), st.sets(st.integers(1, 4)))
    def check(image, crowd_ids):
        image = several_crowds(image, crowd_ids)
        np.testing.assert_allclose(count_matches(*image, CATEGORIES), coco_counts(tmp_path, image, single_core),
                                   rtol=0, atol=1e-12)

    check()


def strip(text: str) -> np.ndarray:
    return np.array([[int(digit) for digit in text]])


# annotated ids, segments (id, category, crowd), predicted numbers, labels → iou, tp, fp, fn of category 0, of 1
CASES = {
    'perfect': ('1122', [(1, 0, False), (2, 1, False)], '1122', [0, 1], [1, 1, 0, 0], [1, 1, 0, 0]),
    'wrong category': ('1111', [(1, 0, False)], '1111', [1], [0, 0, 0, 1], [0, 0, 1, 0]),
    'IoU of one half is no match': ('1100', [(1, 0, False)], '1000', [0], [0, 0, 1, 1], [0] * 4),
    'IoU of two thirds': ('1110', [(1, 0, False)], '1100', [0], [2 / 3, 1, 0, 0], [0] * 4),
    'void leaves the union': ('1100', [(1, 0, False)], '1111', [0], [1, 1, 0, 0], [0] * 4),
    'void of the prediction stays': ('1111', [(1, 0, False)], '1110', [0], [3 / 4, 1, 0, 0], [0] * 4),
    'half in void is a false positive': ('3300', [(3, 1, False)], '1111', [0], [0, 0, 1, 0], [0, 0, 0, 1]),
    'more than half in void is ignored': ('3000', [(3, 1, False)], '1111', [0], [0] * 4, [0, 0, 0, 1]),
    'in a crowd of its category': ('1112', [(1, 0, True), (2, 1, False)], '1111', [0], [0] * 4, [0, 0, 0, 1]),
    'half in a crowd': ('1122', [(1, 0, True), (2, 1, False)], '1111', [0], [0, 0, 1, 0], [0, 0, 0, 1]),
    'in a crowd of another category': ('1112', [(1, 1, True), (2, 0, False)], '1110', [0], [0, 0, 1, 1], [0] * 4),
    'void and crowd add up': ('012222', [(1, 0, True), (2, 1, False)], '111000', [0], [0] * 4, [0, 0, 0, 1]),
    'a crowd is never missed': ('1111', [(1, 0, True)], '0000', [], [0] * 4, [0] * 4),
    'a crowd is never matched': ('1111', [(1, 0, True)], '1111', [0], [0] * 4, [0] * 4),
    'two predictions for one': ('111110', [(1, 0, False)], '111220', [0, 0], [3 / 5, 1, 1, 0], [0] * 4),
    'nothing predicted': ('1122', [(1, 0, False), (2, 1, False)], '0000', [], [0, 0, 0, 1], [0, 0, 0, 1]),
    'nothing annotated': ('0000', [], '1111', [0], [0] * 4, [0] * 4),
    'an id of no segment is not void': ('1199', [(1, 0, False)], '1111', [0], [0, 0, 1, 1], [0] * 4),
    'a segment without pixels': ('2222', [(1, 0, False), (2, 1, False)], '1111', [1], [0, 0, 0, 1], [1, 1, 0, 0]),
}


@pytest.mark.parametrize('name', CASES)
def test_by_hand(name):
    target, segments, prediction, labels, *expected = CASES[name]
    found = count_matches(strip(target), segments, strip(prediction), labels, 2)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_ratios():
    """PQ = SQ · RQ; a category without segments has none."""
    found = panoptic_quality(np.array([[1.5, 2, 1, 3], [0, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 1], [4, 4, 0, 0]]))
    expected = [[1.5 / 4, 0.75, 0.5], [0, 0, 0], [np.nan] * 3, [0, 0, 0], [1, 1, 1]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_segments_of_a_prediction():
    panoptic = np.array([[2, 2, 1000, 2001], [3, 255, 0, 3000]])
    numbers, labels = split_segments(panoptic, num_classes=3, ignore_index=255)
    # 0 is a segment too, stuff of the first label
    assert numbers.tolist() == [[2, 2, 3, 4], [0, 0, 1, 5]]
    assert labels == [0, 2, 0, 1, 0]


def test_prediction_of_another_model():
    with pytest.raises(ValueError, match='the label 7, but there are 3 classes'):
        split_segments(np.array([[1007]]), num_classes=3, ignore_index=3)


def test_offset_is_that_of_mmdet():
    assert pytest.importorskip('mmdet.evaluation').INSTANCE_OFFSET == INSTANCE_OFFSET


# The metric on files.

NAMES = ('cat', 'dog', 'grass', 'never')
TARGETS = {  # by image id: the map and its segments
    3: ([[70000, 70000, 5, 5], [70000, 70000, 5, 0]], [(70000, 10, 0), (5, 30, 0)]),
    8: ([[6, 6, 6, 9], [6, 6, 6, 9]], [(6, 20, 1), (9, 10, 0)]),
}
PREDICTIONS = {
    3: [[1000, 1000, 2, 2], [1000, 4, 2, 2]],  # 4 is void
    8: [[1001, 1001, 1001, 2000], [1001, 1001, 1001, 2001]],
}
# cat: IoU 3/4 and 1/2 (no match: a false positive and a false negative); dog: one in the crowd, one false
# positive; grass: IoU 1, void left out
EXPECTED = dict(cat=(0.75 / 2, 0.75, 0.5), dog=(0, 0, 0), grass=(1, 1, 1))


@pytest.fixture
def annotations(tmp_path) -> Path:
    """An annotation file; its PNGs are in the folder of its name."""
    folder = tmp_path / 'panoptic'
    folder.mkdir()
    entries = []
    for image_id, (ids, segments) in TARGETS.items():
        (folder / f'{image_id:03d}.png').write_bytes(encode_panoptic_png(np.array(ids)))
        entries.append(dict(image_id=image_id, file_name=f'{image_id:03d}.png', segments_info=[
            dict(id=segment_id, category_id=category, iscrowd=crowd) for segment_id, category, crowd in segments]))
    categories = [dict(id=10 * number, name=name, isthing=int(number < 3)) for number, name in enumerate(NAMES, 1)]
    file = folder.with_suffix('.json')
    file.write_text(json.dumps(dict(annotations=entries, categories=categories)))
    return file


def samples(predictions=PREDICTIONS) -> list[dict]:
    return [dict(img_id=image_id, img_path=f'images/{image_id:03d}.jpg',
                 pred_panoptic_seg=dict(sem_seg=torch.tensor([prediction], dtype=torch.int32)))
            for image_id, prediction in predictions.items()]


def build(annotations: Path, classes=NAMES, **kwargs):
    metric = METRICS.build(dict(type='PanopticQualityMetric', ann_file=str(annotations),
                                seg_prefix=str(annotations.with_suffix('')), **kwargs))
    metric.dataset_meta = dict(classes=classes)
    return metric


def test_metric(annotations):
    metric = build(annotations, classwise=True)
    for sample in samples():
        metric.process({}, [sample])
    found = metric.evaluate(2)
    for column, ratio in enumerate(('PQ', 'SQ', 'RQ')):
        of = {name: 100 * values[column] for name, values in EXPECTED.items()}
        assert found[f'coco_panoptic/{ratio}'] == pytest.approx((of['cat'] + of['dog'] + of['grass']) / 3)
        assert found[f'coco_panoptic/{ratio}_th'] == pytest.approx((of['cat'] + of['dog']) / 2)
        assert found[f'coco_panoptic/{ratio}_st'] == pytest.approx(of['grass'])
        for name, value in of.items():
            assert found[f'coco_panoptic/{name}_{ratio}'] == pytest.approx(value)
        assert np.isnan(found[f'coco_panoptic/never_{ratio}'])
    assert len(found) == 9 + 3 * len(NAMES)


@pytest.mark.parametrize('value', [4, 1], ids=['nothing found', 'all wrong'])
def test_no_match_at_all(annotations, value):
    metric = build(annotations)
    metric.process({}, samples({image_id: [[value] * 4] * 2 for image_id in TARGETS}))
    assert set(metric.evaluate(2).values()) == {0.}


def test_figures_have_the_names_of_mmdet(annotations):
    metrics = pytest.importorskip('mmdet.evaluation.metrics.coco_panoptic_metric')
    metric = build(annotations)
    metric.process({}, samples())
    parsed = metrics.parse_pq_results({name: dict(pq=0, sq=0, rq=0) for name in ('All', 'Things', 'Stuff')})
    assert list(metric.evaluate(2)) == [f'{metrics.CocoPanopticMetric.default_prefix}/{name}' for name in parsed]


def test_what_processes_exchange_is_small(annotations):
    metric = build(annotations)
    metric.process({}, samples())
    assert [set(result) for result in metric.results] == [{'statistics'}] * 2
    assert {result['statistics'].shape for result in metric.results} == {(4, 4)}


WORKER = """
import sys
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_panoptic_quality import ORDER, Path, build, json, samples
dist.init_process_group('gloo')
metric = build(Path(sys.argv[2]), outfile_prefix=sys.argv[3])
# the sampler deals the images out in turn, and repeats the first for the process that got one less
mine = (ORDER + ORDER[:1])[dist.get_rank()::2]
for image_id in mine:
    metric.process({}, [sample for sample in samples() if sample['img_id'] == image_id])
assert len(metric.results) == 2
found = metric.evaluate(len(ORDER))
Path(f'{sys.argv[3]}.{dist.get_rank()}').write_text(json.dumps(found))
dist.barrier()  # a process that leaves early may abort the other
dist.destroy_process_group()
"""
ORDER = [3, 8, 8]


@pytest.mark.slow
def test_two_processes(annotations, tmp_path, run):
    """The same figures on both, each image counted once."""
    (tmp_path / 'worker.py').write_text(WORKER)
    prefix = tmp_path / 'results'
    done = run(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2',
               tmp_path / 'worker.py', Path(__file__).parent, annotations, prefix, OMP_NUM_THREADS='1')
    assert done.returncode == 0, done.stdout[-3000:]
    metric = build(annotations)
    for image_id in ORDER:
        metric.process({}, [sample for sample in samples() if sample['img_id'] == image_id])
    expected = metric.evaluate(len(ORDER))
    assert expected['coco_panoptic/PQ'] != pytest.approx(100 * (0.375 + 0 + 1) / 3)  # a repeated image would show
    for rank in range(2):
        assert json.loads(Path(f'{prefix}.{rank}').read_text()) == pytest.approx(expected)
    assert read_back(prefix) == WRITTEN


def test_table_in_the_log(annotations, monkeypatch):
    lines, metric = [], build(annotations, classwise=True)
    metric.process({}, samples())
    monkeypatch.setattr(module.MMLogger, 'get_current_instance', lambda: SimpleNamespace(info=lines.append))
    metric.evaluate(2)
    rows = [row.replace('│', ' ').split() for row in ''.join(lines).splitlines()]
    assert ['things', '18.75', '37.50', '25.00', '2'] in rows
    assert ['grass', '100.00', '100.00', '100.00'] in rows and ['never', 'nan', 'nan', 'nan'] in rows


@pytest.mark.parametrize('change, message', [
    (dict(format_only=True), 'format_only needs outfile_prefix'),
    (dict(seg_prefix=None), 'seg_prefix must name the folder'),
])
def test_missing_arguments(annotations, change, message):
    with pytest.raises(ValueError, match=message):
        METRICS.build({'type': 'PanopticQualityMetric', 'ann_file': str(annotations),
                       'seg_prefix': str(annotations.with_suffix('')), **change})


def test_an_instance_file_is_refused(digits):
    with pytest.raises(ValueError, match='instances_val.json is no panoptic one'):
        build(digits / 'annotations' / 'instances_val.json')


def test_other_classes(annotations):
    with pytest.raises(ValueError, match='classes of the data set must be the categories of ann_file in their order'):
        build(annotations, classes=NAMES[::-1]).process({}, samples())


def test_unknown_image(annotations):
    with pytest.raises(ValueError, match='no annotation of the image 4'):
        build(annotations).process({}, samples({4: PREDICTIONS[3]}))


def test_prediction_of_another_size(annotations):
    with pytest.raises(ValueError, match=r'the image 3 is of height and width \(1, 2\)'):
        build(annotations).process({}, samples({3: [[1000, 1000]]}))


def test_a_detector_without_segments(annotations):
    with pytest.raises(ValueError, match='the model predicts no pred_panoptic_seg'):
        build(annotations).process({}, [dict(img_id=3, pred_instances={})])


# Writing the predictions.

def read_back(prefix: Path) -> dict[int, list]:
    """By image id: the category and the pixels of each segment."""
    content = json.loads(Path(f'{prefix}.panoptic.json').read_text())
    found = {}
    for annotation in content['annotations']:
        colours = np.asarray(Image.open(Path(f'{prefix}.panoptic') / annotation['file_name'])).astype(int)
        ids = colours @ [1, 256, 65536]
        assert set(np.unique(ids)) - {0} == {segment['id'] for segment in annotation['segments_info']}
        found[annotation['image_id']] = sorted((segment['category_id'], (ids == segment['id']).tolist())
                                               for segment in annotation['segments_info'])
    return found


WRITTEN = {image_id: sorted((10 * (value % 1000 + 1), (np.array(prediction) == value).tolist())
                            for value in np.unique(prediction) if value != 4)
           for image_id, prediction in PREDICTIONS.items()}


def test_predictions_are_written_and_evaluated(annotations, tmp_path):
    prefix = tmp_path / 'new' / 'results'
    metric = build(annotations, outfile_prefix=str(prefix))
    metric.process({}, samples())
    assert metric.evaluate(2)['coco_panoptic/PQ'] == pytest.approx(100 * (0.375 + 0 + 1) / 3)
    assert read_back(prefix) == WRITTEN
    assert sorted(path.name for path in prefix.parent.iterdir()) == ['results.panoptic', 'results.panoptic.json']
    assert sorted(path.name for path in (prefix.parent / 'results.panoptic').iterdir()) == ['003.png', '008.png']


def test_format_only_needs_no_annotations(annotations, tmp_path):
    content = json.loads(annotations.read_text())
    del content['annotations']
    annotations.write_text(json.dumps(content))
    prefix = tmp_path / 'results'
    metric = METRICS.build(dict(type='PanopticQualityMetric', ann_file=str(annotations), format_only=True,
                                outfile_prefix=str(prefix)))
    metric.dataset_meta = dict(classes=NAMES)
    metric.process({}, samples())
    assert metric.evaluate(2) == {}
    assert read_back(prefix) == WRITTEN


def test_what_is_written_is_evaluated_alike_by_coco(annotations, single_core, tmp_path):
    prefix = tmp_path / 'results'
    metric = build(annotations, outfile_prefix=str(prefix))
    metric.process({}, samples())
    content = json.loads(annotations.read_text())
    targets = {annotation['image_id']: annotation for annotation in content['annotations']}
    for annotation in targets.values():
        ids = np.array(TARGETS[annotation['image_id']][0])
        for segment in annotation['segments_info']:
            segment['area'] = int((ids == segment['id']).sum())
    metric.evaluate(2)
    results = json.loads(Path(f'{prefix}.panoptic.json').read_text())['annotations']
    counts = single_core(0, [(targets[result['image_id']], result) for result in results],
                         str(annotations.with_suffix('')), f'{prefix}.panoptic',
                         {category['id']: category for category in content['categories']})
    expected = [[getattr(counts[category['id']], name) for name in module.STATISTICS]
                for category in content['categories']]
    metric.process({}, samples())
    np.testing.assert_allclose(sum(result['statistics'] for result in metric.results), expected, atol=1e-12)


def image(name: str) -> dict:
    return dict(image_id=name, file_name=f'{name}.png', segments_info=[], png=name.encode())


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_written_again(tmp_path):
    write_panoptic_results(str(tmp_path / 'x'), [image('a'), image('b')])
    write_panoptic_results(str(tmp_path / 'x'), [image('c')])
    assert set(content_of(tmp_path)) == {'x.panoptic/c.png', 'x.panoptic.json'}
    annotation, = json.loads((tmp_path / 'x.panoptic.json').read_text())['annotations']
    assert annotation['image_id'] == 'c'


@pytest.mark.parametrize('before', [[], [image('a')]], ids=['nothing there', 'results there'])
@pytest.mark.parametrize('number', range(1, 5))
def test_whole_or_not_at_all(before, number, tmp_path, monkeypatch):
    """Any of the renames fails, once."""
    for _ in before:
        write_panoptic_results(str(tmp_path / 'x'), before)
    expected, rename, calls = content_of(tmp_path), Path.rename, []

    def fail_once(path, target):
        calls.append(path)
        if len(calls) == number:
            raise OSError('disk full')
        return rename(path, target)

    monkeypatch.setattr(Path, 'rename', fail_once)
    if number > (4 if before else 2):
        write_panoptic_results(str(tmp_path / 'x'), [image('b')])
        return
    with pytest.raises(OSError, match='disk full'):
        write_panoptic_results(str(tmp_path / 'x'), [image('b')])
    assert content_of(tmp_path) == expected


def test_a_bad_image_leaves_what_was_there(tmp_path):
    write_panoptic_results(str(tmp_path / 'x'), [image('a')])
    expected = content_of(tmp_path)
    with pytest.raises(TypeError):
        write_panoptic_results(str(tmp_path / 'x'), [image('b'), dict(image('c'), png=None)])
    assert content_of(tmp_path) == expected


def test_without_mmdet(run):
    code = ('import sys; sys.modules["mmdet"] = sys.modules["panopticapi"] = None\n'
            'import dynconv_mm; print(dynconv_mm.PanopticQualityMetric.default_prefix)')
    done = run(sys.executable, '-c', code)
    assert done.stdout.splitlines()[-1] == 'coco_panoptic', done.stdout

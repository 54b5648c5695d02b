"""What counts as missed, false or of another class."""
import itertools

import numpy as np
import pytest
import torch

from dynconv_mm.analysis.detection_errors import confusion, match

pytest.importorskip('torchvision')
ONE, TWO, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def matched(annotated, found):
    """Of (box, label) and (box, label, score)."""
    boxes = [torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4) for rows in (annotated, found)]
    labels = [torch.tensor([row[1] for row in rows], dtype=torch.long) for rows in (annotated, found)]
    return match(boxes[0], labels[0], boxes[1], labels[1], torch.tensor([row[2] for row in found]))


@pytest.mark.parametrize(('annotated', 'found', 'right', 'other', 'missed', 'summary'), [
    ([], [], [], [], [], 'all right'),
    ([(ONE, 3)], [(ONE, 3, .9)], [1], [0], [0], 'all right'),
    ([(ONE, 3)], [], [], [], [1], '1 missed'),
    ([], [(ONE, 3, .9)], [0], [0], [], '1 false'),
    ([(ONE, 3)], [(ONE, 4, .9)], [0], [1], [0], '1 of another class'),
    ([(ONE, 3)], [(FAR, 3, .9)], [0], [0], [1], '1 missed, 1 false'),
    # of two on one object the better one is right, wherever it stands
    ([(ONE, 3)], [(ONE, 3, .5), (ONE, 3, .9)], [0, 1], [0, 0], [0], '1 false'),
    # a box of the right class comes before a better one of another
    ([(ONE, 3)], [(ONE, 4, .9), (ONE, 3, .5)], [0, 1], [0, 0], [0], '1 false'),
    # IoU 1/2 counts, less does not
    ([(ONE, 3)], [([0, 0, 10, 5], 3, .9)], [1], [0], [0], 'all right'),
    ([(ONE, 3)], [([0, 0, 10, 4.9], 3, .9)], [0], [0], [1], '1 missed, 1 false'),
    # the nearer of two
    ([([0, 0, 10, 10], 3), ([2, 0, 12, 10], 3)], [([2, 0, 12, 10], 3, .9)], [1], [0], [1, 0], '1 missed'),
    ([(ONE, 3), (TWO, 4)], [(TWO, 3, .9), (ONE, 4, .8), (FAR, 0, .7)], [0, 0, 0], [1, 1, 0], [0, 0],
     '2 of another class, 1 false'),
])
def test_match(annotated, found, right, other, missed, summary):
    matching = matched(annotated, found)
    assert matching.is_right.tolist() == list(map(bool, right))
    assert matching.is_other_class.tolist() == list(map(bool, other))
    assert matching.is_missed.tolist() == list(map(bool, missed))
    assert matching.summary() == summary
    assert matching.errors == sum(missed) + len(right) - sum(right)


def random_objects(rng: np.random.Generator, count: int) -> list[tuple[list[float], int]]:
    """Boxes and labels, 0 or 1."""
    corners = rng.uniform(0, 40, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (count, 2))], 1)
    return list(zip(boxes.tolist(), rng.integers(0, 2, count).tolist()))


def test_right_ones_are_those_of_coco():
    """As COCO's own code finds at IoU 0.5, in random images."""
    from pycocotools.cocoeval import COCOeval
    rng = np.random.default_rng(0)
    for _ in range(20):
        annotated, found = (random_objects(rng, count) for count in (6, 12))
        found = [(*one, score) for one, score in zip(found, (rng.permutation(12) / 12).tolist())]
        evaluation = COCOeval(iouType='bbox')
        evaluation.params.imgIds, evaluation.params.catIds, evaluation.params.iouThrs = [1], [0, 1], np.array([.5])
        records = [[dict(id=number, image_id=1, category_id=label, area=1, iscrowd=0, ignore=0, _ignore=0,
                         bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]], score=score)
                    for number, (box, label, score) in enumerate(rows, 1)]
                   for rows in ([(*one, 1.) for one in annotated], found)]
        matches = 0
        for label in (0, 1):
            evaluation._gts[1, label], evaluation._dts[1, label] = ([record for record in kind
                                                                     if record['category_id'] == label]
                                                                    for kind in records)
            evaluation.ious = {(1, label): evaluation.computeIoU(1, label)}
            result = evaluation.evaluateImg(1, label, [0, 1e10], 100)
            matches += 0 if result is None else int((result['dtMatches'] > 0).sum())
        assert matched(annotated, found).is_right.sum() == matches


def test_confusion():
    matchings = [matched([(ONE, 0), (TWO, 1), (FAR, 1)], [(ONE, 0, .9), (TWO, 0, .8), ([80, 80, 90, 90], 1, .7)]),
                 matched([(ONE, 0)], [(ONE, 0, .9)]), matched([], [])]
    assert confusion(matchings, 2).tolist() == [[2, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_every_annotation_and_box_is_counted_once():
    rng = torch.Generator().manual_seed(0)
    for objects, boxes in itertools.product((0, 1, 5), (0, 3, 9)):
        corners = [torch.rand(count, 2, generator=rng) * 20 for count in (objects, boxes)]
        rectangles = [torch.cat([corner, corner + 10], 1) for corner in corners]
        matching = match(rectangles[0], torch.randint(0, 3, (objects, ), generator=rng), rectangles[1],
                         torch.randint(0, 3, (boxes, ), generator=rng), torch.rand(boxes, generator=rng))
        counts = confusion([matching], 3)
        assert counts[:3].sum() == objects and counts[:, :3].sum() == boxes and counts[3, 3] == 0

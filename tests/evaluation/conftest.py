"""A small data set in COCO's format, with predictions near its annotations."""
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

CATEGORIES = [dict(id=number, name=name) for number, name in ((3, 'kite'), (7, 'dog|cat'), (20, 'ship'))]
SIZES = [(150, 170), (210, 160), (140, 220), (180, 180)]  # height, width of the images, by id from 11 on


def encode(mask: np.ndarray) -> dict:
    """Run lengths as JSON has them."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(rle['size']), counts=rle['counts'].decode())


def ellipse(box: np.ndarray, size: tuple) -> np.ndarray:
    """bool[height, width], the ellipse in a box of left, top, width and height."""
    rows, columns = np.mgrid[:size[0], :size[1]]
    left, top, width, height = box
    return ((columns - left - width / 2) * 2 / width)**2 + ((rows - top - height / 2) * 2 / height)**2 <= 1


@pytest.fixture(scope='session')
def coco_set(tmp_path_factory):
    """The annotation file, and by image id predictions: boxes (left, top, right, bottom), scores, labels, masks.

    Objects of all three sizes, a crowd, an image without objects, and one with more than 100 predictions of a
    category, of which COCO's AP sees fewer than its other figures.
    """
    rng = np.random.default_rng(0)
    annotations, predictions = [], {}
    for image_id, size in enumerate(SIZES, 11):
        boxes, labels = [], []
        for index in range(0 if image_id == 12 else 9):
            extent = rng.uniform(*((8, 30), (35, 90), (97, 130))[index % 3], 2)
            box = np.append(rng.uniform(0, np.array(size[::-1]) - extent), extent)
            mask = ellipse(box, size)
            label = int(rng.integers(3))
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id, category_id=CATEGORIES[label]['id'],
                                    bbox=box.tolist(), area=float(mask.sum()), iscrowd=int(index == 8),
                                    segmentation=encode(mask)))
            boxes.append(box)
            labels.append(label)
        found = [(box + rng.normal(0, 0.06, 4) * np.tile(box[2:], 2), label if rng.random() < 0.8 else 0)
                 for box, label in zip(boxes, labels)]
        for _ in range(130 if image_id == 13 else 10):
            box = np.append(rng.uniform(0, 90, 2), rng.uniform(8, 50, 2))
            found.append((box, 0 if image_id == 13 else int(rng.integers(3))))
        corners = np.array([[*box[:2], *(box[:2] + np.abs(box[2:]))] for box, _ in found])
        scores = rng.uniform(0.05, 1, len(found))
        if image_id == 13:
            scores[:len(boxes)] = 0.01  # behind the hundred best of their category
        predictions[image_id] = dict(
            bboxes=corners, scores=scores, labels=np.array([label for _, label in found]),
            masks=np.stack([ellipse(np.append(box[:2], box[2:] - box[:2]), size) for box in corners]))
    path = tmp_path_factory.mktemp('coco') / 'instances_val.json'
    path.write_text(json.dumps(dict(
        images=[dict(id=image_id, height=height, width=width, file_name=f'{image_id}.png')
                for image_id, (height, width) in enumerate(SIZES, 11)],
        annotations=annotations, categories=CATEGORIES)))
    return path, predictions


@pytest.fixture
def write_results(tmp_path):
    """Write records or any other content as JSON; returns the file."""

    def write(content: object, name: str = 'ours.bbox.json'):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write

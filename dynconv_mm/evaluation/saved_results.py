"""COCO's figures of saved predictions: boxes, masks and panoptic segments, as mmdet's metrics write them."""
from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..datasets.panoptic_png import VOID, read_panoptic_png
from .panoptic_quality import INSTANCE_OFFSET, PanopticQualityMetric, mean_quality, panoptic_quality

BOX_COLUMNS = ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')
PANOPTIC_COLUMNS = tuple(f'{ratio}{ending}' for ending in ('', '_th', '_st') for ratio in ('PQ', 'SQ', 'RQ'))
RATIO_COLUMNS = PANOPTIC_COLUMNS[:3]
MAX_DETS = (100, 300, 1000)  # mmdet's; COCO's own code takes AP of 100 detections an image and the others of the last


class Evaluation(NamedTuple):
    """Figures of one file of results, in percent; NaN where there is nothing to measure."""

    figures: dict[str, float]  # by column
    by_category: dict[str, dict[str, float]]  # by category and column
    notes: list[str] = []  # what a reader should know


def read_json(path: str | Path) -> object:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {str(path)!r}')
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:  # also of text that is no UTF-8
        raise ValueError(f'{path} is no JSON: {error}') from error


def read_annotations(path: str | Path) -> dict:
    """An annotation file of COCO, of instances or panoptic.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no annotation file.
    """
    content = read_json(path)
    if not isinstance(content, dict) or any(not isinstance(content.get(part), list)
                                            for part in ('images', 'annotations', 'categories')):
        raise ValueError(f'{path} is no annotation file of COCO: it has no lists of images, annotations and categories')
    if not content['categories'] or not content['images']:
        raise ValueError(f'{path} has no categories, or no images')
    return content


def is_panoptic(annotations: dict) -> bool:
    """Whether an annotation file is a panoptic one."""
    return all('isthing' in category for category in annotations['categories'])


def read_results(path: str | Path, metric: str, annotations: dict) -> list[dict]:
    """Predicted boxes or masks, a list of records of ``image_id``, ``category_id``, ``score``, and ``bbox`` (left, top,
    width, height) or ``segmentation`` (run lengths: ``size`` and ``counts``).

    Args:
        path (str | Path): what mmdet's ``CocoMetric`` writes to ``{outfile_prefix}.bbox.json`` and ``.segm.json``.
        metric (str): 'bbox' or 'segm'.
        annotations (dict): what it is to be held against.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another format, or of images or categories that the annotations do not have.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise ValueError(f'{path} holds no results: it is a {type(records).__name__}, where a list of detections is '
                         'expected')
    images = {image['id']: image for image in annotations['images']}
    categories = {category['id'] for category in annotations['categories']}
    field = 'bbox' if metric == 'bbox' else 'segmentation'
    for number, record in enumerate(records):
        where = f'detection {number} of {path}'
        if not isinstance(record, dict):
            raise ValueError(f'{where} is no record of image_id, category_id, score and {field}')
        if metric == 'segm' and not record.get(field):
            raise ValueError(f'{where} has no mask (segmentation): segm needs the file .segm.json, which a detector '
                             'with a mask head writes')
        if lacking := [name for name in ('image_id', 'category_id', 'score', field) if name not in record]:
            raise ValueError(f'{where} has no {" and no ".join(lacking)}')
        if not _is_number(record['score']):
            raise ValueError(f'the score of {where} must be a number, but is {record["score"]!r}')
        if metric == 'bbox':
            if not isinstance(record[field], list) or len(record[field]) != 4 or not all(map(_is_number,
                                                                                             record[field])):
                raise ValueError(f'the bbox of {where} must be left, top, width and height, but is {record[field]!r}')
        elif not isinstance(record[field], dict) or not {'size', 'counts'} <= record[field].keys():
            raise ValueError(f'the segmentation of {where} must be of run lengths, with size and counts')
    _check_known(path, 'images', {record['image_id'] for record in records}, images)
    _check_known(path, 'categories', {record['category_id'] for record in records}, categories)
    if metric == 'segm':
        for number, record in enumerate(records):
            image = images[record['image_id']]
            if list(record[field]['size']) != [image['height'], image['width']]:
                raise ValueError(f'the mask of detection {number} of {path} has height and width '
                                 f'{record[field]["size"]}, but the image {record["image_id"]} has '
                                 f'{[image["height"], image["width"]]}')
    return records


def evaluate_detections(path: str | Path, metric: str, annotations: dict) -> Evaluation:
    """AP of boxes or masks by pycocotools, as mmdet's ``CocoMetric`` calls it.

    Args:
        path (str | Path), metric (str), annotations (dict): as of :func:`read_results`. All its images and categories
            count.

    Raises:
        FileNotFoundError, ValueError: as of :func:`read_results`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    records = read_results(path, metric, annotations)
    with contextlib.redirect_stdout(io.StringIO()):  # they print what they do
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        if records:
            # with its box a mask would count as large as that; with its mask a box as the mask
            other = 'segmentation' if metric == 'bbox' else 'bbox'
            found = truth.loadRes([{key: value for key, value in record.items() if key != other}
                                   for record in records])
        else:
            found = COCO()  # loadRes takes no empty list
            found.dataset = dict(annotations, annotations=[])
            found.createIndex()
        evaluation = COCOeval(truth, found, metric)
        evaluation.params.maxDets = list(MAX_DETS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = {category['id']: category['name'] for category in annotations['categories']}
    precision = evaluation.eval['precision']  # [IoU, recall, category, area, maxDets]
    by_category = {}
    for index, category in enumerate(evaluation.params.catIds):
        of_category = precision[:, :, index, :, -1]
        parts = (of_category[:, :, 0], of_category[0, :, 0], of_category[5, :, 0],  # IoU 0.5 and 0.75
                 *(of_category[:, :, area] for area in (1, 2, 3)))
        by_category[names[category]] = {column: _percent(part[part > -1].mean() if (part > -1).any() else -1)
                                        for column, part in zip(BOX_COLUMNS, parts)}
    notes = [] if records else [f'{path} has no detections at all']
    return Evaluation(dict(zip(BOX_COLUMNS, map(_percent, evaluation.stats))), by_category, notes)


def evaluate_panoptic(path: str | Path, folder: str | Path, ann_file: str | Path, seg_prefix: str | Path) -> Evaluation:
    """PQ, SQ and RQ of panoptic segments, as :class:`PanopticQualityMetric` computes them.

    Args:
        path (str | Path): the segments, as it writes them to ``{outfile_prefix}.panoptic.json``. An image that lacks
            there counts as one in which nothing was found; a note says so.
        folder (str | Path): their PNGs.
        ann_file (str | Path): the annotations.
        seg_prefix (str | Path): folder of their PNGs.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: a file is of another format, or of images or categories that the annotations do not have.
    """
    annotations = read_annotations(ann_file)
    content = read_json(path)
    results = content.get('annotations') if isinstance(content, dict) else None
    if not isinstance(results, list) or not all(isinstance(result, dict) and {'image_id', 'file_name', 'segments_info'}
                                                <= result.keys() for result in results):
        raise ValueError(f'{path} holds no panoptic results: a list "annotations" of image_id, file_name and '
                         'segments_info is expected')
    metric = PanopticQualityMetric(str(ann_file), str(seg_prefix))
    _check_known(path, 'images', {result['image_id'] for result in results}, metric.annotations)
    _check_known(path, 'categories', {segment['category_id'] for result in results
                                      for segment in result['segments_info']}, metric.label_of)
    by_image = {result['image_id']: result for result in results}
    names = [category['name'] for category in metric.categories]
    metric.dataset_meta = dict(classes=names)
    for directory in (folder, seg_prefix):
        if not Path(directory).is_dir():
            raise FileNotFoundError(f'there is no folder {str(directory)!r} with the PNGs')
    missing = []
    for image_id, annotation in metric.annotations.items():
        result = by_image.get(image_id)
        if result is None:
            missing.append(image_id)
            shape = read_panoptic_png(Path(seg_prefix, annotation['file_name'])).shape
            labels = np.full(shape, len(names))
        else:
            labels = _panoptic_labels(path, Path(folder, result['file_name']), result, metric.label_of)
        metric.process({}, [dict(img_id=image_id, pred_panoptic_seg=dict(sem_seg=torch.from_numpy(labels)[None]))])
    statistics = sum(result['statistics'] for result in metric.results)
    quality = 100 * panoptic_quality(statistics)
    things = np.array([bool(category['isthing']) for category in annotations['categories']])
    figures = {f'{ratio}{ending}': float(value) for ending, values in mean_quality(quality, things).items()
               for ratio, value in zip(RATIO_COLUMNS, values)}
    by_category = {name: dict(zip(RATIO_COLUMNS, values)) for name, values in zip(names, quality.tolist())}
    notes = [f'{path} has no segments of {len(missing)} of {len(metric.annotations)} images, which count as images in '
             f'which nothing was found'] if missing else []
    return Evaluation(figures, by_category, notes)


def _panoptic_labels(path: str | Path, png: Path, result: dict, label_of: dict[int, int]) -> np.ndarray:
    """A panoptic prediction as mmdet has it: label + number of the segment · 1000, and for void the label behind the
    last."""
    if not png.is_file():
        raise FileNotFoundError(f'there is no file {str(png)!r}, which {path} names')
    ids = read_panoptic_png(png)
    values = {VOID: len(label_of)}
    for number, segment in enumerate(result['segments_info'], 1):
        values[segment['id']] = label_of[segment['category_id']] + number * INSTANCE_OFFSET
    present, index = np.unique(ids, return_inverse=True)
    if unknown := [value for value in present.tolist() if value not in values]:
        raise ValueError(f'{png} has the segment {unknown[0]}, of which {path} says no category')
    return np.array([values[value] for value in present.tolist()])[index].reshape(ids.shape)


def _check_known(path: str | Path, what: str, ids: set, known: Iterable) -> None:
    known = set(known)
    try:
        unknown = sorted(ids - known)
    except TypeError:  # of several types
        unknown = sorted(ids - known, key=str)
    if unknown:
        shown = ', '.join(map(str, unknown[:5])) + (f' and {len(unknown) - 5} more' if len(unknown) > 5 else '')
        raise ValueError(f'{path} has results of {what} that the annotations do not have, {shown}: they are of another '
                         'data set or split')


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _percent(value: float) -> float:
    """Of the three decimals that mmdet prints; COCO says -1 where there is nothing to measure."""
    return float('nan') if value < 0 else 100 * round(float(value), 3)

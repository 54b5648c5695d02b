"""What detectors found in a test set, right and wrong, as pictures and parts of a page."""
from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from torch import nn

from ..datasets.panoptic_png import read_panoptic_png
from ..evaluation import PanopticQualityMetric
from ..evaluation.panoptic_quality import INSTANCE_OFFSET, panoptic_quality
from ..evaluation.saved_results import evaluate_detections, read_annotations
from .detection_errors import Matching, confusion, match
from .detection_figures import Mark, confusion_figure, marked_pictures_figure
from .figures import picture_row_figure, to_png
from .html_page import embedded_png, figure, table
from .result_figures import curves_figure
from .trained_model import Spread
from .training_log import TrainingLog, band, read_log, training_cost

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

GROUND, RIGHT, OTHER, FALSE, MISSED = '#2b6cb0', '#2f855a', '#c05621', '#c53030', '#b83280'
COLOURS = {'annotated': GROUND, 'found': RIGHT, 'found as another class': OTHER, 'false': FALSE,
           'missed (dashed)': MISSED}
CLASS_TITLES = ['class', 'objects', 'AP', 'missed', 'found as another', 'false']
CURVES = {'loss': 'loss', 'coco/bbox_mAP': 'AP of boxes', 'coco_panoptic/PQ': 'PQ (%)'}


def annotated_instances(info: dict) -> InstanceData:
    """The annotated boxes of an image."""
    return InstanceData(
        bboxes=torch.tensor([instance['bbox'] for instance in info['instances']]).reshape(-1, 4).float(),
        labels=torch.tensor([instance['bbox_label'] for instance in info['instances']], dtype=int))


def annotated_masks(info: dict) -> np.ndarray:
    """The annotated masks of an image, ``bool[objects, height, width]``."""
    from mmdet.datasets.transforms import LoadAnnotations
    loaded = LoadAnnotations(with_bbox=False, with_label=False, with_mask=True)(
        dict(info, ori_shape=(info['height'], info['width'])))
    return loaded['gt_masks'].to_ndarray().astype(bool)


def matching_of(info: dict, found: DetDataSample, score_thr: float) -> Matching:
    """What a detector found in an image with at least that score, held against the annotations."""
    there, boxes = annotated_instances(info), found.pred_instances
    boxes = boxes[boxes.scores >= score_thr]
    return match(there.bboxes, there.labels, boxes.bboxes, boxes.labels, boxes.scores)


def annotated_marks(info: dict, classes: Sequence[str], with_masks: bool) -> list[Mark]:
    """The annotations of an image."""
    there = annotated_instances(info)
    masks = annotated_masks(info) if with_masks else [None] * len(there)
    return [Mark(box, classes[label], GROUND, mask=mask)
            for box, label, mask in zip(there.bboxes.tolist(), there.labels.tolist(), masks)]


def found_marks(info: dict, found: DetDataSample, matching: Matching, classes: Sequence[str]) -> list[Mark]:
    """What was found in an image, by how right it is, and what was missed."""
    boxes = found.pred_instances
    masks = boxes.masks.numpy() if 'masks' in boxes else [None] * len(boxes)
    marks = [Mark(instance['bbox'], f'missed: {classes[instance["bbox_label"]]}', MISSED, dashed=True)
             for instance, missed in zip(info['instances'], matching.is_missed) if missed]
    for index, (box, label, score, mask) in enumerate(zip(boxes.bboxes.tolist(), boxes.labels.tolist(),
                                                          boxes.scores.tolist(), masks)):
        text, colour = f'{classes[label]} {score:.2f}', FALSE
        if matching.is_right[index]:
            colour = RIGHT
        elif matching.is_on_object[index]:
            there = classes[matching.annotated[matching.partner[index]]]
            text, colour = f'{text}, is {there}', OTHER
        marks.append(Mark(box, text, colour, mask=mask))
    return marks


def records_of(image_id: int, found: DetDataSample, category_ids: Sequence[int]) -> list[dict]:
    """The boxes that were found in an image as COCO has them."""
    boxes = found.pred_instances
    return [dict(image_id=image_id, category_id=category_ids[label], score=score,
                 bbox=[left, top, right - left, bottom - top])
            for (left, top, right, bottom), label, score in zip(boxes.bboxes.tolist(), boxes.labels.tolist(),
                                                                boxes.scores.tolist())]


def annotated_segments(info: dict, scale: int, num_classes: int) -> DetDataSample:
    """The annotated segments of an image, enlarged; the label ``num_classes`` is void."""
    from mmdet.structures import DetDataSample
    ids = read_panoptic_png(info['seg_map_path'])
    annotated = np.full(ids.shape, num_classes)
    for number, segment in enumerate(info['segments_info'], 1):
        annotated[ids == segment['id']] = segment['category'] + number * INSTANCE_OFFSET
    return DetDataSample(gt_panoptic_seg=PixelData(sem_seg=np.kron(annotated[None], np.ones((1, scale, scale), int))))


def found_segments(found: DetDataSample, scale: int) -> DetDataSample:
    """The segments that were found in an image, enlarged."""
    from mmdet.structures import DetDataSample
    segments = found.pred_panoptic_seg.sem_seg.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return DetDataSample(pred_panoptic_seg=PixelData(sem_seg=segments))


def image_quality(metric: PanopticQualityMetric, image_id: int, found: DetDataSample) -> float:
    """PQ of one image in percent, the mean over the categories that are in it or found in it."""
    found.set_metainfo(dict(img_id=image_id))
    metric.process({}, [found.to_dict()])
    return 100 * np.nanmean(panoptic_quality(metric.results.pop()['statistics'])[:, 0])


class Examined(NamedTuple):
    """What detectors did in the images that were looked through; by the detector's name."""

    order: list[int]  # indices of the images, the worst of the first detector's first
    matchings: dict[str, dict[int, Matching]]  # of each image; empty for segments
    qualities: dict[str, dict[int, float]]  # PQ of each image; empty for instances
    records: dict[str, list[dict]]  # boxes as COCO has them
    drawn: dict[int, dict[str, DetDataSample]]  # what was found in the worst images, the boxes with the least score


def examine(models: dict[str, nn.Module], dataset: Sequence, count: int, drawn: int, score_thr: float) -> Examined:
    """Look through ``count`` images, spread over the test set, for errors, and keep what was found in the ``drawn``
    worst of them."""
    from mmdet.apis import inference_detector
    from mmdet.registry import METRICS
    from rich.progress import track
    matchings, qualities = {name: {} for name in models}, {name: {} for name in models}
    records, metric, kept = {name: [] for name in models}, None, {}
    indices, first = Spread(dataset, count).indices, next(iter(models))

    def order(index: int) -> tuple[float, int]:
        matching = matchings[first].get(index)
        return qualities[first][index] if matching is None else -matching.errors, index

    for index in track(indices, 'looking for errors'):
        info = dataset.get_data_info(index)
        kept[index] = {}
        for name, model in models.items():
            found = kept[index][name] = inference_detector(model, info['img_path']).cpu()
            if 'segments_info' in info:
                if metric is None:
                    metric = METRICS.build(model.cfg.test_evaluator)
                    metric.dataset_meta = dataset.metainfo
                qualities[name][index] = image_quality(metric, info['img_id'], found)
            else:
                matchings[name][index] = matching_of(info, found, score_thr)
                records[name] += records_of(info['img_id'], found, dataset.cat_ids)
                found.pred_instances = found.pred_instances[found.pred_instances.scores >= score_thr]
        if len(kept) > drawn:
            del kept[max(kept, key=order)]
    return Examined(sorted(indices, key=order), matchings, qualities, records, kept)


def draw(dataset: Sequence, examined: Examined, folder: Path, width: int) -> dict[str, str]:
    """Write the pictures of the worst images, panels of that width side by side; returns the caption of each by its
    file name."""
    import cv2
    from rich.progress import track
    classes, captions = dataset.metainfo['classes'], {}
    for index in track(examined.order[:len(examined.drawn)], 'drawing'):
        info, found = dataset.get_data_info(index), examined.drawn[index]
        name = f'{Path(info["img_path"]).stem}.png'
        image = cv2.cvtColor(cv2.imread(info['img_path']), cv2.COLOR_BGR2RGB)
        if 'segments_info' in info:
            captions[name] = f'{name} (PQ {", ".join(f"{one[index]:.1f}" for one in examined.qualities.values())})'
            scale = max(1, round(width / image.shape[1]))
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            picture = picture_row_figure(drawn_segments(image, info, found, scale, dataset.metainfo))
        else:
            captions[name] = '; '.join(f'{title}: {matching[index].summary()}' if len(found) > 1 else
                                       f'{name}: {matching[index].summary()}'
                                       for title, matching in examined.matchings.items())
            with_masks = any('masks' in one.pred_instances for one in found.values())
            picture = marked_pictures_figure(image, {
                'annotated': annotated_marks(info, classes, with_masks),
                **{title: found_marks(info, one, examined.matchings[title][index], classes)
                   for title, one in found.items()}}, width)
        (folder / name).write_bytes(to_png(picture))
    return captions


def drawn_segments(image: np.ndarray, info: dict, found: dict[str, DetDataSample], scale: int,
                   metainfo: dict) -> dict[str, np.ndarray]:
    """An image with its annotated segments, and with those found, as mmdet draws them."""
    from mmdet.visualization import DetLocalVisualizer
    visualizer = DetLocalVisualizer(line_width=2)
    visualizer.dataset_meta = metainfo
    samples = {'annotated': annotated_segments(info, scale, len(metainfo['classes'])),
               **{title: found_segments(one, scale) for title, one in found.items()}}
    panels = {}
    for title, sample in samples.items():
        visualizer.add_datasample(title, image, sample, draw_gt=title == 'annotated', draw_pred=title != 'annotated')
        panels[title] = visualizer.get_image()
    return panels


def class_sections(examined: Examined, dataset: Sequence) -> list[str]:
    """AP and errors by class, and which classes are taken for which, as parts of the page; none of segments."""
    matchings = {name: list(found.values()) for name, found in examined.matchings.items() if found}
    if not matchings:
        return []
    classes = dataset.metainfo['classes']
    annotations = read_annotations(dataset.ann_file)
    ids = {dataset.get_data_info(index)['img_id'] for index in examined.order}
    annotations.update(images=[image for image in annotations['images'] if image['id'] in ids],
                       annotations=[one for one in annotations['annotations'] if one['image_id'] in ids])
    names = {category['id']: category['name'] for category in annotations['categories']}
    parts = [f'<h2>By class, of {len(ids)} images</h2>']
    for name, found in matchings.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, 'found.bbox.json')
            file.write_text(json.dumps(examined.records[name]), encoding='utf-8')
            precisions = evaluate_detections(file, 'bbox', annotations).by_category
        counts, rows = confusion(found, len(classes)), []
        for label, title in enumerate(classes):
            precision = precisions[names[dataset.cat_ids[label]]]['AP'] / 100
            of_class, missed = counts[label, :-1], counts[label, -1]
            rows.append([title, str(of_class.sum() + missed), '–' if isnan(precision) else f'{precision:.3f}',
                         *map(str, (missed, of_class.sum() - of_class[label], counts[-1, label]))])
        if len(matchings) > 1:
            parts.append(f'<h3>{escape(name)}</h3>')
        drawn = figure(embedded_png(to_png(confusion_figure(counts, classes))), f'confusion of classes by {name}',
                       'How often objects of a class (rows) were found as one of a class (columns). The last row is of '
                       'false boxes, the last column of objects that were missed.')
        parts += [f'<div class="row"><div>{table(CLASS_TITLES, rows)}</div>{drawn}</div>']
    return parts


def training_sections(logs: dict[str, TrainingLog]) -> list[str]:
    """Curves of what trainings logged, as a part of the page."""
    figures = []
    for metric, label in CURVES.items():
        curves = {name: dict(training=band([log], metric)) for name, log in logs.items() if metric in log.metrics()}
        if curves:
            by_epoch = all(logs[name].by_epoch for name in curves)
            drawn = curves_figure(curves, 'epoch' if by_epoch else 'iteration', label)
            figures.append(figure(embedded_png(to_png(drawn)), f'{label} in training', f'{label} in training'))
    return ['<h2>Training</h2>', f'<div class="row">{"".join(figures)}</div>'] if figures else []


def description(name: str, model: nn.Module, log: TrainingLog | None) -> str:
    """A line on a detector: its class, size and the time of its training."""
    parts = [f'{name}: {type(model).__name__}']
    if hasattr(model, 'backbone'):
        parts.append(f'backbone {type(model.backbone).__name__}')
    parts.append(f'{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} million parameters')
    if log is not None and any({'iter', 'epoch', 'time'} <= record.keys() for record in log.records):
        cost, epochs = training_cost(log), max(record.get('epoch', 0) for record in log.records)
        parts.append(f'trained for {epochs} epoch{"s" if epochs != 1 else ""} in {cost.total_hours * 60:.0f} minutes, '
                     f'{cost.batch_seconds:.2f} s an iteration')
    return ', '.join(parts)


def legend(metainfo: dict, segments: bool) -> str:
    """What the colours of the pictures mean: of boxes how right they are, of segments the classes."""
    from mmdet.visualization import get_palette
    classes = metainfo['classes']
    colours = {name: f'rgb{tuple(map(int, colour))}' for name, colour in zip(
        classes, get_palette(metainfo.get('palette'), len(classes)))} if segments else COLOURS
    return '<p class="classes">\n' + '\n'.join(f'<span style="color: {colour}"><b>{escape(name)}</b></span>'
                                                for name, colour in colours.items()) + '\n</p>'


def logs_beside(checkpoints: Mapping[str, str | Path]) -> dict[str, TrainingLog]:
    """The logs of the trainings whose checkpoints these are, as far as they lie beside them."""
    logs = {}
    for name, checkpoint in checkpoints.items():
        folder = Path(checkpoint).resolve().parent
        if any(folder.glob('*/vis_data/scalars.json')):
            logs[name] = read_log(folder)
    return logs

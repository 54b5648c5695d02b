"""Panoptic quality (Kirillov et al., CVPR 2019) as COCO defines it, without ``panopticapi``, which is not on PyPI.

torchmetrics has a ``PanopticQuality`` too, but it knows no crowds, leaves void of the prediction out of the
union, and forgives segments that were missed for it: its figures are not COCO's.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import join_path, load
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from rich.console import Console
from rich.table import Table

from ..datasets.panoptic_png import VOID, encode_panoptic_png, read_panoptic_png

INSTANCE_OFFSET = 1000  # mmdet's: a pixel of a panoptic prediction is label + number of the instance · 1000
STATISTICS = ('iou', 'tp', 'fp', 'fn')  # the columns that are counted for each category
IGNORED_FRACTION = 0.5  # of a prediction in void or crowd: with more it is no false positive


def count_matches(target: np.ndarray, segments: Sequence[tuple[int, int, bool]], prediction: np.ndarray,
                  labels: Sequence[int], num_categories: int) -> np.ndarray:
    """Matches of the segments of an image, by category.

    A predicted and an annotated segment of the same category match if their IoU is above 0.5, which at most one
    does; void of the annotation counts for neither. Crowds match nothing. An unmatched annotated segment is a
    false negative, unless it is a crowd; an unmatched predicted one a false positive, unless more than half of
    it is in void or in a crowd of its category.

    Args:
        target (np.ndarray): ``int[height, width]``, annotated segment ids, 0 for void.
        segments (Sequence[tuple[int, int, bool]]): id, category and whether it is a crowd, of each annotated
            segment. Of several crowds of a category, of which COCO has one at most in an image, the last counts.
        prediction (np.ndarray): ``int[height, width]``, numbers of predicted segments from 1 on, 0 for void.
        labels (Sequence[int]): category of each predicted segment.
        num_categories (int): number of categories.

    Returns:
        np.ndarray: ``float64[num_categories, 4]``: sum of the IoUs of the matches, number of matches, of false
        positives and of false negatives.
    """
    pairs, counts = np.unique(target.astype(np.int64) * (len(labels) + 1) + prediction, return_counts=True)
    target_ids, columns = np.divmod(pairs, len(labels) + 1)
    rows_of = {VOID: 0, **{segment_id: row for row, (segment_id, _, _) in enumerate(segments, 1)}}
    rows = [rows_of.get(target_id, len(segments) + 1) for target_id in target_ids.tolist()]
    pixels = np.zeros((len(segments) + 2, len(labels) + 1))  # the last row is of ids that no segment has
    np.add.at(pixels, (rows, columns), counts)

    void, shared = pixels[VOID, 1:], pixels[1:-1, 1:]
    target_labels = np.array([label for _, label, _ in segments], int)
    crowd = np.array([is_crowd for _, _, is_crowd in segments], bool)
    labels = np.asarray(labels, int)
    area = pixels[:, 1:].sum(axis=0)
    union = pixels[1:-1].sum(axis=1)[:, None] + area - shared - void
    candidates = (target_labels[:, None] == labels) & ~crowd[:, None] & (shared > 0)
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=candidates)
    matched = iou > 0.5

    crowd_rows = {label: row for row, (_, label, is_crowd) in enumerate(segments, 1) if is_crowd}
    ignored = void + [pixels[crowd_rows[label], column] if label in crowd_rows else 0
                      for column, label in enumerate(labels.tolist(), 1)]
    false_positive = ~matched.any(axis=0) & (ignored <= IGNORED_FRACTION * area)
    false_negative = ~matched.any(axis=1) & ~crowd

    found, _ = np.nonzero(matched)
    return np.stack([
        np.bincount(target_labels[found], iou[matched], num_categories),
        np.bincount(target_labels[found], minlength=num_categories),
        np.bincount(labels[false_positive], minlength=num_categories),
        np.bincount(target_labels[false_negative], minlength=num_categories),
    ], axis=1).astype(float)  # bincount of nothing gives integers, whatever the weights


def panoptic_quality(statistics: np.ndarray) -> np.ndarray:
    """PQ, SQ and RQ.

    Args:
        statistics (np.ndarray): ``float64[num_categories, 4]``, the sum of :func:`count_matches` over all images.

    Returns:
        np.ndarray: ``float64[num_categories, 3]``, in 0..1; NaN for a category of which there was no segment.
    """
    iou, true_positive, false_positive, false_negative = statistics.T
    segments = true_positive + 0.5 * false_positive + 0.5 * false_negative
    present = segments > 0
    ratios = [np.divide(iou, segments, out=np.full_like(iou, np.nan), where=present),
              np.divide(iou, true_positive, out=np.where(present, 0, np.nan), where=true_positive > 0),
              np.divide(true_positive, segments, out=np.full_like(iou, np.nan), where=present)]
    return np.stack(ratios, axis=1)


def mean_quality(quality: np.ndarray, things: np.ndarray) -> dict[str, tuple[float, float, float, int]]:
    """Means over the categories of which there was a segment.

    Args:
        quality (np.ndarray): ``float64[num_categories, 3]``, of :func:`panoptic_quality`.
        things (np.ndarray): ``bool[num_categories]``, whether a category is a thing.

    Returns:
        dict[str, tuple[float, float, float, int]]: PQ, SQ and RQ, NaN where there was no segment at all, and the number
        of categories; of all under '', of things under '_th' and of stuff under '_st'.
    """
    rows = {}
    for ending, members in {'': np.ones_like(things), '_th': things, '_st': ~things}.items():
        present = quality[members & ~np.isnan(quality[:, 0])]
        rows[ending] = (*(present.mean(axis=0) if len(present) else np.full(3, np.nan)), len(present))
    return rows


def split_segments(panoptic: np.ndarray, num_classes: int, ignore_index: int) -> tuple[np.ndarray, list[int]]:
    """The segments of a panoptic prediction of mmdet.

    Args:
        panoptic (np.ndarray): ``int[height, width]``, label + number of the instance · 1000; the label
            ``num_classes`` is void.
        num_classes (int): number of classes.
        ignore_index (int): a label that is void too.

    Returns:
        tuple: ``int64[height, width]``, numbers of the segments from 1 on, 0 for void, and the label of each
        segment.

    Raises:
        ValueError: there is a label beyond ``num_classes``.
    """
    values, index = np.unique(panoptic, return_inverse=True)
    labels = values % INSTANCE_OFFSET
    void = (labels == num_classes) | (labels == ignore_index)
    if (unknown := labels[~void & (labels > num_classes)]).size:
        raise ValueError(f'the prediction has the label {unknown[0]}, but there are {num_classes} classes: '
                         'num_things_classes and num_stuff_classes of the model must be those of the data set')
    numbers = np.where(void, VOID, np.cumsum(~void))
    return numbers[index].reshape(panoptic.shape), labels[~void].tolist()


def write_panoptic_results(prefix: str, images: Sequence[dict]) -> None:
    """Write predictions in COCO's panoptic format, whole or not at all.

    Args:
        prefix (str): the folder ``{prefix}.panoptic`` gets the PNGs, the file ``{prefix}.panoptic.json`` the
            segments. What is there is replaced.
        images (Sequence[dict]): ``image_id``, ``file_name``, ``segments_info`` and the PNG itself, ``png``, of
            each image.
    """
    folder, file = Path(f'{prefix}.panoptic'), Path(f'{prefix}.panoptic.json')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f'.{folder.name}-', dir=folder.parent) as work:
        new, old = Path(work) / 'new', Path(work) / 'old'
        (new / folder.name).mkdir(parents=True)
        old.mkdir()
        for image in images:
            (new / folder.name / image['file_name']).write_bytes(image['png'])
        annotations = [{key: value for key, value in image.items() if key != 'png'} for image in images]
        (new / file.name).write_text(json.dumps(dict(annotations=annotations)))
        try:
            for path in (file, folder):
                if path.exists():
                    path.rename(old / path.name)
            for path in (folder, file):
                (new / path.name).rename(path)
        except BaseException:
            for path in (folder, file):
                if not (new / path.name).exists():
                    path.rename(new / path.name)
                if (old / path.name).exists():
                    (old / path.name).rename(path)
            raise


@METRICS.register_module()
class PanopticQualityMetric(BaseMetric):
    """PQ, SQ and RQ of COCO's panoptic task, for all categories, things and stuff, in percent.

    In place of mmdet's ``CocoPanopticMetric``, with the same names of the figures: ``PQ``, ``SQ``, ``RQ``, and
    with the endings ``_th`` and ``_st``. A category of which there was no segment does not count in the means.
    The area of an annotated segment is its number of pixels in the PNG.

    Args:
        ann_file (str): annotation file in COCO's panoptic format.
        seg_prefix (str, optional): folder of the annotated PNGs; needed unless ``format_only``.
        classwise (bool): give the figures of each category too, as ``{name}_PQ`` …. Default: False.
        format_only (bool): write the predictions and evaluate nothing, for a test set. Default: False.
        outfile_prefix (str, optional): write the predictions in COCO's format to ``{outfile_prefix}.panoptic``
            and ``{outfile_prefix}.panoptic.json``, both or none of them. Default: None, write nothing.
        backend_args (dict, optional): mmengine's file backend of the annotations. Default: None.
        collect_device (str): 'cpu' or 'gpu', over which processes exchange results. Default: 'cpu'.
        prefix (str, optional): prefix of the names of the figures. Default: 'coco_panoptic'.

    Raises:
        ValueError: an argument lacks; ``ann_file`` is no panoptic one, or its categories are not the classes of
            the data set; or the model predicts other classes or sizes, or no panoptic segments.
    """

    default_prefix = 'coco_panoptic'

    def __init__(self,
                 ann_file: str,
                 seg_prefix: str | None = None,
                 classwise: bool = False,
                 format_only: bool = False,
                 outfile_prefix: str | None = None,
                 backend_args: dict | None = None,
                 collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not isinstance(ann_file, (str, Path)) or Path(ann_file).suffix != '.json':  # mmengine would unpickle .pkl
            raise ValueError(f'ann_file must be the path of a JSON file, but is {ann_file!r}')
        if format_only and outfile_prefix is None:
            raise ValueError('format_only needs outfile_prefix, the place to write the predictions to')
        if not format_only and seg_prefix is None:
            raise ValueError('seg_prefix must name the folder of the annotated PNGs, unless format_only is True')
        self.seg_prefix = seg_prefix
        self.classwise = classwise
        self.format_only = format_only
        self.outfile_prefix = outfile_prefix
        self.backend_args = backend_args
        content = load(ann_file, backend_args=backend_args)
        self.categories = content['categories']
        if not all('isthing' in category for category in self.categories):
            raise ValueError(f'ann_file {ann_file} is no panoptic one: its categories have no isthing')
        self.annotations = {annotation['image_id']: annotation for annotation in content.get('annotations', [])}
        # mmdet's labels are the positions in the annotation file
        self.label_of = {category['id']: label for label, category in enumerate(self.categories)}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the matches of a batch of predictions, ``pred_panoptic_seg`` of each sample."""
        names = [category['name'] for category in self.categories]
        if list(self.dataset_meta['classes']) != names:
            raise ValueError(f'the classes of the data set must be the categories of ann_file in their order, {names}, '
                             f'but are {list(self.dataset_meta["classes"])}')
        for sample in data_samples:
            if 'pred_panoptic_seg' not in sample:
                raise ValueError('the model predicts no pred_panoptic_seg: PanopticQualityMetric is for panoptic '
                                 'segmentors, such as PanopticFPN')
            panoptic = sample['pred_panoptic_seg']
            prediction, labels = split_segments(panoptic['sem_seg'][0].cpu().numpy(), len(names),
                                                panoptic.get('ignore_index', len(names)))
            result = {}
            if not self.format_only:
                result['statistics'] = self._count(sample['img_id'], prediction, labels)
            if self.outfile_prefix is not None:
                segments = [dict(id=number, category_id=self.categories[label]['id'])
                            for number, label in enumerate(labels, 1)]
                result['image'] = dict(image_id=sample['img_id'], file_name=f'{Path(sample["img_path"]).stem}.png',
                                       segments_info=segments, png=encode_panoptic_png(prediction))
            self.results.append(result)

    def _count(self, image_id: int, prediction: np.ndarray, labels: list[int]) -> np.ndarray:
        if image_id not in self.annotations:
            raise ValueError(f'ann_file has no annotation of the image {image_id}: is it of another data set?')
        annotation = self.annotations[image_id]
        path = join_path(self.seg_prefix, annotation['file_name'], backend_args=self.backend_args)
        target = read_panoptic_png(path, self.backend_args)
        if target.shape != prediction.shape:
            raise ValueError(f'the prediction for the image {image_id} is of height and width {prediction.shape}, but '
                             f'{path} of {target.shape}')
        segments = [(segment['id'], self.label_of[segment['category_id']], bool(segment.get('iscrowd', False)))
                    for segment in annotation['segments_info']]
        return count_matches(target, segments, prediction, labels, len(self.categories))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """The figures of all images; writes the predictions where they are asked for."""
        logger = MMLogger.get_current_instance()
        if self.outfile_prefix is not None:
            write_panoptic_results(self.outfile_prefix, [result['image'] for result in results])
            logger.info(f'the predictions are in {self.outfile_prefix}.panoptic and the file .panoptic.json beside it')
        if self.format_only:
            return {}
        quality = 100 * panoptic_quality(sum(result['statistics'] for result in results))
        things = np.array([bool(category['isthing']) for category in self.categories])
        rows = mean_quality(quality, things)
        table = Table('', 'PQ', 'SQ', 'RQ', 'categories', title='Panoptic quality')
        for title, (*ratios, count) in zip(('all', 'things', 'stuff'), rows.values()):
            table.add_row(title, *(f'{ratio:.2f}' for ratio in ratios), str(count))
        metrics = {f'{name}{ending}': float(ratio) for ending, ratios in rows.items()
                   for name, ratio in zip(('PQ', 'SQ', 'RQ'), ratios)}
        if self.classwise:
            for category, ratios in zip(self.categories, quality.tolist()):
                table.add_row(category['name'], *(f'{ratio:.2f}' for ratio in ratios), '')
                metrics.update({f'{category["name"]}_{name}': ratio for name, ratio in zip(('PQ', 'SQ', 'RQ'), ratios)})
        console = Console(width=100, no_color=True)
        with console.capture() as text:
            console.print(table)
        logger.info('\n' + text.get())
        return metrics

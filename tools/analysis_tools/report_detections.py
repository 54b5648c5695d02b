#!/usr/bin/env python3
"""Draw what detectors find, boxes, masks or panoptic segments, beside the annotations, on a page with COCO's table."""
from __future__ import annotations

import argparse
import html
import json
import os
import shutil
import tempfile
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runs import numbered

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

    from dynconv_mm.evaluation import PanopticQualityMetric

METRICS = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75', 'AP small': 'mAP_s', 'AP medium': 'mAP_m',
           'AP large': 'mAP_l'}
RATIOS = ('PQ', 'SQ', 'RQ')
KINDS = {'bbox': 'boxes', 'segm': 'masks'}
INSTANCES = 'what is annotated, and what was found with a score of at least {score_thr}.'
SEGMENTS = """the annotated segments, and those found; what shows the bare photograph there belongs to none. Under each
picture its own PQ, the mean over the categories annotated or found in it."""


class Detector(NamedTuple):
    """A trained detector and its test."""

    config: str
    checkpoint: str
    test_dir: Path


def read_metrics(folder: Path) -> list[list[str]]:
    """The newest COCO metrics that ``mim test`` wrote below ``folder``: a row of titles, then rows of figures."""
    for file in sorted(folder.rglob('*.json'), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            values = json.loads(file.read_text())
        except ValueError:  # a log, one JSON object a line
            continue
        if 'coco_panoptic/PQ' in values:
            return panoptic_table({name.partition('/')[2]: value for name, value in values.items()})
        if 'coco/bbox_mAP' in values:
            # COCO says -1 where no object has that size
            return [['', *METRICS], *([title, *('–' if (value := values[f'coco/{kind}_{name}']) < 0 else f'{value:.3f}'
                                                for name in METRICS.values())]
                                      for kind, title in KINDS.items() if f'coco/{kind}_mAP' in values)]
    raise SystemExit(f'report_detections: no COCO metrics below {folder}: run `mim test mmdet CONFIG --checkpoint '
                     f'CHECKPOINT --work-dir {folder}` first')


def panoptic_table(values: dict[str, float]) -> list[list[str]]:
    """PQ, SQ and RQ of all categories, of things and of stuff, and of each category where ``values`` has them."""
    names = {'all': '{}', 'things': '{}_th', 'stuff': '{}_st'}
    names.update({name[:-len('_PQ')]: name[:-len('PQ')] + '{}' for name in values if name.endswith('_PQ')})
    rows = {title: [values[name.format(ratio)] for ratio in RATIOS] for title, name in names.items()}
    # no number where there is no such segment
    return [['', *RATIOS], *([title, *('–' if isnan(ratio) else f'{ratio:.1f}' for ratio in ratios)]
                             for title, ratios in rows.items())]


def headline(titles: list[str], rows: list[list[str]]) -> str:
    """The first figure of the table, under its title."""
    return f'{titles[1]} {rows[0][1]}'


def annotated_instances(info: dict, scale: int, with_masks: bool) -> DetDataSample:
    """The annotated boxes of an image, and masks where they are asked for, enlarged."""
    from mmdet.datasets.transforms import LoadAnnotations
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from torch import tensor
    instances = InstanceData(
        bboxes=tensor([instance['bbox'] for instance in info['instances']]).reshape(-1, 4).float() * scale,
        labels=tensor([instance['bbox_label'] for instance in info['instances']], dtype=int))
    if with_masks:
        loaded = LoadAnnotations(with_bbox=False, with_label=False, with_mask=True)(
            dict(info, ori_shape=(info['height'], info['width'])))
        instances.masks = loaded['gt_masks'].resize((info['height'] * scale, info['width'] * scale))
    return DetDataSample(gt_instances=instances)


def found_instances(found: DetDataSample, scale: int) -> DetDataSample:
    """The boxes and masks that were found in an image, enlarged."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    instances = found.pred_instances
    enlarged = InstanceData(bboxes=instances.bboxes * scale, labels=instances.labels, scores=instances.scores)
    if 'masks' in instances:
        enlarged.masks = instances.masks.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return DetDataSample(pred_instances=enlarged)


def annotated_segments(info: dict, scale: int, num_classes: int) -> DetDataSample:
    """The annotated segments of an image, enlarged; the label ``num_classes`` is void."""
    import numpy as np
    from mmdet.evaluation import INSTANCE_OFFSET
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData

    from dynconv_mm.datasets.panoptic_png import read_panoptic_png
    ids = read_panoptic_png(info['seg_map_path'])
    annotated = np.full(ids.shape, num_classes)
    for number, segment in enumerate(info['segments_info'], 1):
        annotated[ids == segment['id']] = segment['category'] + number * INSTANCE_OFFSET
    return DetDataSample(gt_panoptic_seg=PixelData(sem_seg=np.kron(annotated[None], np.ones((1, scale, scale), int))))


def found_segments(found: DetDataSample, scale: int) -> DetDataSample:
    """The segments that were found in an image, enlarged."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData
    segments = found.pred_panoptic_seg.sem_seg.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return DetDataSample(pred_panoptic_seg=PixelData(sem_seg=segments))


def image_quality(metric: PanopticQualityMetric, image_id: int, found: DetDataSample) -> float:
    """PQ of one image in percent, the mean over the categories that are in it or found in it."""
    import numpy as np

    from dynconv_mm.evaluation.panoptic_quality import panoptic_quality
    found.set_metainfo(dict(img_id=image_id))
    metric.process({}, [found.to_dict()])
    return 100 * np.nanmean(panoptic_quality(metric.results.pop()['statistics'])[:, 0])


def draw(detectors: dict[str, Detector], folder: Path, count: int, score_thr: float,
         scale: int) -> tuple[dict[str, str], dict[str, tuple[int, int, int]]]:
    """Write ``count`` pictures, spread over the test set of the first detector.

    Returns:
        The caption of each picture by its file name, and the colour, RGB, of each class by its name.
    """
    import cv2
    from mmdet.apis import inference_detector, init_detector
    from mmdet.registry import DATASETS, METRICS
    from mmdet.visualization import DetLocalVisualizer, get_palette
    from rich.progress import track

    from dynconv_mm.analysis.figures import picture_row_figure, to_png

    models = {name: init_detector(detector.config, detector.checkpoint, device='cpu')
              for name, detector in detectors.items()}
    cfg = next(iter(models.values())).cfg
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    classes = dataset.metainfo['classes']
    visualizer = DetLocalVisualizer(line_width=2)
    visualizer.dataset_meta = dataset.metainfo
    metric, captions = None, {}
    for index in track(range(0, len(dataset), max(1, len(dataset) // count)), 'drawing'):
        if len(captions) == count:
            break
        info = dataset.get_data_info(index)
        found = {name: inference_detector(model, info['img_path']).cpu() for name, model in models.items()}
        name = caption = f'{Path(info["img_path"]).stem}.png'
        if 'segments_info' in info:
            if metric is None:
                metric = METRICS.build(cfg.test_evaluator)
                metric.dataset_meta = dataset.metainfo
            qualities = [f'{image_quality(metric, info["img_id"], one):.1f}' for one in found.values()]
            caption += f' (PQ {", ".join(qualities)})'
            drawn = {'annotated': annotated_segments(info, scale, len(classes)),
                     **{title: found_segments(one, scale) for title, one in found.items()}}
        else:
            with_masks = any('masks' in one.pred_instances for one in found.values())
            drawn = {'annotated': annotated_instances(info, scale, with_masks),
                     **{title: found_instances(one, scale) for title, one in found.items()}}
        image = cv2.cvtColor(cv2.imread(info['img_path']), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        panels = {}
        for title, sample in drawn.items():
            visualizer.add_datasample(title, image, sample, draw_gt=title == 'annotated',
                                      draw_pred=title != 'annotated', pred_score_thr=score_thr)
            panels[title] = visualizer.get_image()
        (folder / name).write_bytes(to_png(picture_row_figure(panels)))
        captions[name] = caption
    return captions, dict(zip(classes, get_palette(dataset.metainfo.get('palette'), len(classes))))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--test-dir', type=Path, required=True, help='--work-dir of `mim test`')
    parser.add_argument('--beside', nargs=3, action='append', default=[], metavar=('CONFIG', 'CHECKPOINT', 'TEST_DIR'),
                        help='another detector, with the --work-dir of its test, to draw beside it; can be given '
                        'several times')
    parser.add_argument('--out', type=Path, required=True, help='folder to make; a report that is there is replaced')
    parser.add_argument('--images', type=int, default=12, metavar='N', help='pictures to draw (default: 12)')
    parser.add_argument('--score-thr', type=float, default=0.5, metavar='S', help='least score drawn (default: 0.5)')
    parser.add_argument('--scale', type=int, default=3, metavar='K', help='enlargement of the images (default: 3)')
    args = parser.parse_args(argv)
    for name in ('images', 'scale'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1')
    if not 0 <= args.score_thr <= 1:
        parser.error('--score-thr must be from 0 to 1')
    chosen = [Detector(args.config, args.checkpoint, args.test_dir),
              *(Detector(config, checkpoint, Path(test_dir)) for config, checkpoint, test_dir in args.beside)]
    for path in (path for detector in chosen for path in detector[:2]):
        if not Path(path).is_file():
            parser.error(f'{path} does not exist')
    detectors = dict(zip(numbered([Path(detector.config).stem for detector in chosen]), chosen))
    if args.out.exists() and not (args.out / 'index.html').is_file():
        parser.error(f'--out {args.out} exists and is no report of this tool; name another folder')
    metrics = {name: read_metrics(detector.test_dir) for name, detector in detectors.items()}
    titles, *rows = next(iter(metrics.values()))
    if len({tuple(found[0]) for found in metrics.values()}) > 1:
        raise SystemExit(f'{parser.prog}: --beside takes detectors with the same metrics, but '
                         + ', '.join(f'{name} has {found[0][1]}' for name, found in metrics.items()))
    text = headline(titles, rows)
    if args.beside:
        titles, rows = ['detector', *titles], [[name, *row] for name, found in metrics.items() for row in found[1:]]
    from dynconv_mm.analysis.html_page import figure, page, table
    from dynconv_mm.conversion import CheckpointError, read_state_dict
    try:
        for detector in chosen:
            read_state_dict(detector.checkpoint)  # before mmdet loads it
    except CheckpointError as error:
        raise SystemExit(f'{parser.prog}: {error}') from None

    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f'.{args.out.name}-') as made:
        made = Path(made)
        captions, colours = draw(detectors, made, args.images, args.score_thr, args.scale)
        figures = '\n'.join(figure(name, f'annotations and detections of image {name}', caption)
                            for name, caption in captions.items())
        classes = '\n'.join(f'<span style="color: rgb{tuple(map(int, colour))}"><b>{html.escape(name)}</b></span>'
                            for name, colour in colours.items())
        meaning = SEGMENTS if 'PQ' in titles else INSTANCES.format(score_thr=args.score_thr)
        (made / 'index.html').write_text(page(
            Path(args.config).stem, table(titles, rows),
            f'<p>COCO metrics of the whole test set. Below, {len(captions)} of its images, {meaning}</p>',
            f'<p class="classes">\n{classes}\n</p>', f'<div class="pictures">\n{figures}\n</div>'), encoding='utf-8')
        (made / 'summary.txt').write_text(text + '\n')
        if args.out.exists():
            shutil.rmtree(args.out)
        shutil.copytree(made, args.out)
    os.chmod(args.out, 0o755)

    from rich.console import Console
    from rich.table import Table
    shown = Table(*titles)
    for row in rows:
        shown.add_row(*row)
    print(Path(args.config).stem)
    Console().print(shown)
    print(f'{len(captions)} pictures: {args.out / "index.html"}')


if __name__ == '__main__':
    main()

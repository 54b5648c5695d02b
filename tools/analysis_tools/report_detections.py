#!/usr/bin/env python3
"""A page on what detectors find, boxes, masks or panoptic segments, and on what they get wrong, with COCO's tables.

The images with the most errors come first: objects that were missed, found as another class, and boxes that are on
none. Curves of the training are drawn from the log that lies beside the checkpoint.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from math import isnan
from pathlib import Path
from typing import NamedTuple

from runs import numbered

METRICS = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75', 'AP small': 'mAP_s', 'AP medium': 'mAP_m',
           'AP large': 'mAP_l'}
RATIOS = ('PQ', 'SQ', 'RQ')
KINDS = {'bbox': 'boxes', 'segm': 'masks'}
PAGE_WIDTH = 1240  # pixels of a row of pictures
INSTANCES = """Below, the {count} of {examined} images with the most errors of the first detector among boxes with a
score of at least {score_thr}. A box is right where it overlaps an object of its class by an IoU of at least 0.5 and no
box with a better score does; false where it overlaps none, or one that has its box already."""
SEGMENTS = """Below, the {count} of {examined} images with the lowest PQ of the first detector: the annotated segments,
and those found; what shows the bare photograph there belongs to none. Under each picture its own PQ, the mean over the
categories annotated or found in it."""


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


def write_page(detectors: dict[str, Detector], metrics: str, folder: Path, args: argparse.Namespace) -> int:
    """Write the page and its pictures; returns how many pictures there are."""
    from mmdet.registry import DATASETS

    from dynconv_mm import get_model
    from dynconv_mm.analysis import detection_report as report
    from dynconv_mm.analysis.detection_figures import GUTTER
    from dynconv_mm.analysis.html_page import figure, page, paragraph
    models = {name: get_model(detector.config, detector.checkpoint) for name, detector in detectors.items()}
    dataset = DATASETS.build(next(iter(models.values())).cfg.test_dataloader.dataset)
    examined = report.examine(models, dataset, max(args.examine, args.images), args.images, args.score_thr)
    width = args.scale * dataset.get_data_info(0)['width'] if args.scale else PAGE_WIDTH // (1 + len(models)) - GUTTER
    captions = report.draw(dataset, examined, folder, width)
    logs = report.logs_beside({name: detector.checkpoint for name, detector in detectors.items()})
    meaning = INSTANCES if any(examined.matchings.values()) else SEGMENTS
    figures = '\n'.join(figure(name, f'annotations and detections of image {name}', caption)
                        for name, caption in captions.items())
    (folder / 'index.html').write_text(page(
        Path(args.config).stem,
        *(paragraph(report.description(name, model, logs.get(name))) for name, model in models.items()),
        paragraph('COCO metrics of the whole test set:'), metrics, *report.training_sections(logs),
        *report.class_sections(examined, dataset), '<h2>Pictures</h2>',
        paragraph(meaning.format(count=len(captions), examined=len(examined.order), score_thr=args.score_thr)),
        report.legend(dataset.metainfo, meaning is SEGMENTS), f'<div class="pictures">\n{figures}\n</div>'),
        encoding='utf-8')
    return len(captions)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--test-dir', type=Path, required=True, help='--work-dir of `mim test`')
    parser.add_argument('--beside', nargs=3, action='append', default=[], metavar=('CONFIG', 'CHECKPOINT', 'TEST_DIR'),
                        help='another detector, with the --work-dir of its test, to draw beside it; can be given '
                        'several times')
    parser.add_argument('--out', type=Path, required=True, help='folder to make; a report that is there is replaced')
    parser.add_argument('--images', type=int, default=12, metavar='N', help='pictures to draw (default: 12)')
    parser.add_argument('--score-thr', type=float, default=0.5, metavar='S', help='least score drawn (default: 0.5)')
    parser.add_argument('--examine', type=int, default=300, metavar='N', help='images to look through for errors, '
                        'spread over the test set (default: %(default)s)')
    parser.add_argument('--scale', type=int, metavar='K', help='enlargement of the images (default: one at which they '
                        'fill the page side by side)')
    args = parser.parse_args(argv)
    for name in ('images', 'examine', 'scale'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
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
    from dynconv_mm.analysis.html_page import table
    from dynconv_mm.conversion import CheckpointError

    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f'.{args.out.name}-') as made:
        made = Path(made)
        try:
            count = write_page(detectors, table(titles, rows), made, args)
        except CheckpointError as error:
            raise SystemExit(f'{parser.prog}: {error}') from None
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
    print(f'{count} pictures: {args.out / "index.html"}')


if __name__ == '__main__':
    main()

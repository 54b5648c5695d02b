#!/usr/bin/env python3
"""Draw a detector's boxes beside the annotated ones and write an HTML page with the COCO table."""
from __future__ import annotations

import argparse
import html
import json
import os
import shutil
import tempfile
from pathlib import Path

METRICS = {'bbox_mAP': 'AP', 'bbox_mAP_50': 'AP50', 'bbox_mAP_75': 'AP75', 'bbox_mAP_s': 'AP small',
           'bbox_mAP_m': 'AP medium', 'bbox_mAP_l': 'AP large'}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font-family: sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }} th, td {{ border: 1px solid #bbb; padding: .3rem .8rem; text-align: right; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(36rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} img {{ width: 100%; }} figcaption {{ font-size: .85rem; color: #555; }}
</style></head><body>
<h1>{title}</h1>
<table><tr>{names}</tr><tr>{values}</tr></table>
<p>COCO metrics of the whole validation set. Below, {count} of its images: annotations on the left, detections with a
score of at least {score_thr} on the right.</p>
<div class="pictures">
{figures}
</div></body></html>
"""


def read_metrics(folder: Path) -> dict[str, str]:
    """The newest COCO metrics that ``mim test`` wrote below ``folder``, by the papers' names."""
    for file in sorted(folder.rglob('*.json'), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            values = json.loads(file.read_text())
        except ValueError:  # a log, one JSON object a line
            continue
        if 'coco/bbox_mAP' in values:
            # COCO says -1 where no object has that size
            return {title: '–' if values[f'coco/{name}'] < 0 else f'{values[f"coco/{name}"]:.3f}'
                    for name, title in METRICS.items()}
    raise SystemExit(f'report_detections: no COCO metrics below {folder}: run `mim test mmdet CONFIG --checkpoint '
                     f'CHECKPOINT --work-dir {folder}` first')


def draw(config: str, checkpoint: str, folder: Path, count: int, score_thr: float, scale: int) -> list[str]:
    """Write ``count`` pictures, spread over the test set, and return their file names."""
    import cv2
    from mmdet.apis import inference_detector, init_detector
    from mmdet.registry import DATASETS
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer
    from mmengine.structures import InstanceData
    from rich.progress import track
    from torch import tensor

    model = init_detector(config, checkpoint, device='cpu')
    dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    visualizer = DetLocalVisualizer(line_width=2)
    visualizer.dataset_meta = dataset.metainfo
    names = []
    for index in track(range(0, len(dataset), max(1, len(dataset) // count)), 'drawing'):
        if len(names) == count:
            break
        info = dataset.get_data_info(index)
        found = inference_detector(model, info['img_path']).pred_instances.cpu()
        annotated = InstanceData(
            bboxes=tensor([instance['bbox'] for instance in info['instances']]).reshape(-1, 4).float() * scale,
            labels=tensor([instance['bbox_label'] for instance in info['instances']], dtype=int))
        found.bboxes = found.bboxes * scale
        image = cv2.cvtColor(cv2.imread(info['img_path']), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        name = f'{Path(info["img_path"]).stem}.png'
        visualizer.add_datasample(name, image, DetDataSample(gt_instances=annotated, pred_instances=found),
                                  pred_score_thr=score_thr, out_file=str(folder / name))
        names.append(name)
    return names


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--test-dir', type=Path, required=True, help='--work-dir of `mim test`')
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
    for path in (args.config, args.checkpoint):
        if not Path(path).is_file():
            parser.error(f'{path} does not exist')
    if args.out.exists() and not (args.out / 'index.html').is_file():
        parser.error(f'--out {args.out} exists and is no report of this tool; name another folder')
    metrics = read_metrics(args.test_dir)

    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f'.{args.out.name}-') as made:
        made = Path(made)
        names = draw(args.config, args.checkpoint, made, args.images, args.score_thr, args.scale)
        figures = '\n'.join(f'<figure><img src="{name}" alt="annotations and detections of image {name}">'
                            f'<figcaption>{name}</figcaption></figure>' for name in names)
        cells = {tag: ''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in texts)
                 for tag, texts in (('th', metrics), ('td', metrics.values()))}
        (made / 'index.html').write_text(
            PAGE.format(title=html.escape(Path(args.config).stem), names=cells['th'], values=cells['td'],
                        count=len(names), score_thr=args.score_thr, figures=figures), encoding='utf-8')
        if args.out.exists():
            shutil.rmtree(args.out)
        shutil.copytree(made, args.out)
    os.chmod(args.out, 0o755)

    from rich.console import Console
    from rich.table import Table
    table = Table(*metrics, title=Path(args.config).stem)
    table.add_row(*metrics.values())
    Console().print(table)
    print(f'{len(names)} pictures: {args.out / "index.html"}')


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""A YOLO with dynamic convolutions: trained, validated, used on images and exported."""
from __future__ import annotations

import argparse

try:
    from ultralytics import YOLO
except ModuleNotFoundError as error:
    raise SystemExit('this example needs ultralytics, and was tested with 8.4.190: pip install ultralytics') from error

from dynconv_mm.adapters.ultralytics import dynamic_trainer


def main(argv: list[str] | None = None) -> YOLO:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', help="the data set's yaml, as ultralytics takes it")
    parser.add_argument('--model', default='yolov8n.yaml',
                        help='a yaml, or weights to start from (default: %(default)s)')
    parser.add_argument('--kernels', type=int, default=4, help='kernels of a layer (default: %(default)s)')
    parser.add_argument('--include', help='which convolutions, as dynamicize takes it; default: all that it can')
    parser.add_argument('--epochs', type=int, default=100, help='(default: %(default)s)')
    parser.add_argument('--imgsz', type=int, default=640, help='size of the images (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=16, help='images in a batch (default: %(default)s)')
    parser.add_argument('--device', default=None, help="such as cpu or 0; default: ultralytics' choice")
    parser.add_argument('--project', default='work_dirs/yolo', help='where to write (default: %(default)s)')
    args = parser.parse_args(argv)
    yolo = YOLO(args.model)
    trainer = dynamic_trainer(op=dict(type='ODConv2d', kernel_num=args.kernels), include=args.include)
    yolo.train(data=args.data, trainer=trainer, epochs=args.epochs, imgsz=args.imgsz, batch=args.batch,
               device=args.device, project=args.project, workers=0, plots=False)
    print('mAP50-95:', yolo.val(data=args.data, imgsz=args.imgsz, project=args.project, workers=0,
                                   plots=False).box.map)
    print('written:', yolo.export(format='onnx', imgsz=args.imgsz, simplify=False))
    return yolo


if __name__ == '__main__':
    main()

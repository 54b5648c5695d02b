#!/usr/bin/env python3
"""Export a classifier, a detector or a backbone to ONNX, or by torch.export."""
from __future__ import annotations

import argparse


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or a name that dynconv_mm.list_models() lists')
    parser.add_argument('checkpoint', nargs='?', help="its weights; if left out initial ones, with the norms' "
                        'statistics of random images')
    parser.add_argument('--out', required=True, help='the file to write')
    parser.add_argument('--format', default='onnx', help='onnx or torch-export (default: onnx)')
    parser.add_argument('--part', default='model', help='model, or backbone for that alone (default: model)')
    parser.add_argument('--input-size', nargs=2, type=int, metavar=('H', 'W'),
                        help='of the images (default: 224 224; of detectors 800 1280)')
    parser.add_argument('--batch', type=int, default=1, help='images that the file takes at once (default: 1)')
    parser.add_argument('--dynamic', action='store_true', help='the file takes any batch and size, for which it is '
                        'slower')
    parser.add_argument('--runtime', default='onnxruntime', help='which is to run ONNX fast: onnxruntime or openvino '
                        '(default: onnxruntime)')
    parser.add_argument('--opset', type=int, help='of ONNX (default: 17, with --exporter dynamo 18)')
    parser.add_argument('--exporter', default='torchscript', help='of ONNX: torchscript or dynamo (default: '
                        'torchscript)')
    args = parser.parse_args(argv)

    from dynconv_mm import get_model
    from dynconv_mm.conversion.export import export
    try:
        network = get_model(args.config, pretrained=args.checkpoint or False)
        size = args.input_size or ((800, 1280) if hasattr(network, 'rpn_head') or hasattr(network, 'bbox_head')
                                   else (224, 224))
        written = export(network, args.out, format=args.format, part=args.part, input_size=tuple(size),
                         batch=args.batch, dynamic=args.dynamic, runtime=args.runtime, opset=args.opset,
                         exporter=args.exporter, settle=args.checkpoint is None,
                         progress=lambda step: print(step, flush=True))
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    opset = '' if written.opset is None else f' (opset {written.opset})'
    print(f'{written.path}: {written.format}{opset}, {written.size / 2**20:.1f} MiB, largest difference from PyTorch '
          f'{written.difference:.1e}; outputs: {", ".join(written.outputs)}')


if __name__ == '__main__':
    main()

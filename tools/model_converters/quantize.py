#!/usr/bin/env python3
"""Export a trained network to ONNX in INT8, for ONNX Runtime and OpenVINO, and say how far it is from float.

Half of the images give the ranges of the activations; on the others the outputs are compared.
"""
from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

ROUNDS = 20  # of the times that are measured


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier (mmpretrain) or a detector (mmdet)')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('images', nargs='*', metavar='IMAGE', help='image files, and folders with images in or below '
                        'them; they go through the test pipeline of the config, which has to give all the same size')
    parser.add_argument('--dataset', action='store_true', help="take the config's validation set in place of IMAGEs")
    parser.add_argument('--max-images', type=int, default=256, metavar='N', help='take every so many of the images, N '
                        'in all (default: 256)')
    parser.add_argument('--out', required=True, type=Path, metavar='FILE', help='the file to write')
    parser.add_argument('--runtime', default='onnxruntime', help='which is to run it fast: onnxruntime or openvino '
                        '(default: onnxruntime)')
    parser.add_argument('--part', default='model', help='model, or backbone for that alone (default: model)')
    args = parser.parse_intermixed_args(argv)  # images after options too
    if bool(args.images) == args.dataset:
        parser.error('name images or folders, or give --dataset, one of both')
    if args.max_images < 2:
        parser.error(f'--max-images must be at least 2, but is {args.max_images}')
    return args


def load(args: argparse.Namespace):
    """The network, and images as it gets them, each Tensor[1, 3, height, width]."""
    from rich.progress import track

    from dynconv_mm.analysis.trained_model import batches, load_with_images, preprocess
    trained, found = load_with_images(args.config, args.checkpoint, None if args.dataset else args.images,
                                      args.max_images)
    if len(found) < 2:
        raise ValueError(f'there must be at least 2 images, but there are {len(found)}')
    images = [preprocess(trained, batch) for batch in track(batches(found, 1), 'reading images', len(found))]
    shapes = sorted({tuple(image.shape[2:]) for image in images})
    if len(shapes) > 1:
        raise ValueError(f'the test pipeline of {args.config} must give all images the same size, but gives '
                         f'{shapes[0]}, {shapes[1]} …: name images of one size, or resize in the pipeline')
    return trained.model, images


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    from dynconv_mm.analysis.timing import time_in_turns
    from dynconv_mm.conversion.export import export, load_onnx
    from dynconv_mm.conversion.quantize import compare, quantize
    try:
        network, images = load(args)
        with tempfile.TemporaryDirectory() as folder:
            exact = export(network, Path(folder, 'float.onnx'), part=args.part, input_size=tuple(images[0].shape[2:]),
                           runtime=args.runtime, progress=lambda step: print(step, flush=True))
            print(f'quantising with the ranges on {len(images[::2])} images', flush=True)
            written = quantize(exact.path, args.out, images[::2])
            runs = [load_onnx(path, args.runtime, threads=1) for path in (exact.path, written.path)]
            agreement = compare(*runs, images[1::2])
            times = time_in_turns({name: partial(run, images[0]) for name, run in zip(('float', 'INT8'), runs)},
                                  range(ROUNDS))
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise SystemExit(f'quantize.py: {error}') from error
    print(f'{written.path}: {written.size / 2**20:.1f} MiB, float {exact.size / 2**20:.1f}; {written.convolutions} '
          f'convolutions in INT8, {len(written.left_out)} nodes that make or use kernels in float')
    print(f'on {len(images[1::2])} other images the outputs differ by {agreement.mean_difference:.1%} on average and '
          f'by {agreement.difference:.1%} of the largest value at most'
          + ('' if agreement.top1 is None else f'; the class is the same for {agreement.top1:.1%}'))
    print(f'one image in {args.runtime}, one thread: '
          + ', '.join(f'{name} {timing.milliseconds:.2f} ms' for name, timing in times.items()))


if __name__ == '__main__':
    main()

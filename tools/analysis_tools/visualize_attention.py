#!/usr/bin/env python3
"""Show what a trained network with dynamic convolutions learned: figures, a page of them, and the numbers as JSON.

Whatever the network has is shown: the attentions of ODConv, DyConv and CondConv by layer; the kernels that DCDC and
involution predict over images; the variance of DCD's Φ by layer; and, of classifiers, Grad-CAM.
"""
from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from runs import numbered

PAGE, NUMBERS = 'report.html', 'report.json'
FIGURES = ('attention_means', 'attention_histograms', 'phi_variance', 'kernel_maps', 'grad_cam')


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier (mmpretrain) or a detector (mmdet)')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('images', nargs='*', metavar='IMAGE', help='image files, and folders with images in or below '
                        'them; they go through the test pipeline of the config')
    parser.add_argument('--dataset', action='store_true', help="take the config's validation set in place of IMAGEs")
    parser.add_argument('--out', type=Path, required=True, metavar='DIR',
                        help=f'folder for {PAGE}, {NUMBERS} and the figures; a report that is there is replaced')
    parser.add_argument('--beside', '--static', nargs=2, action='append', default=[],
                        metavar=('CONFIG', 'CHECKPOINT'), help='another classifier, static or not, to show beside it '
                        'by Grad-CAM; can be given several times')
    parser.add_argument('--max-images', type=int, metavar='N', help='take every so many of the images, N in all '
                        '(default: all)')
    parser.add_argument('--drawn', type=int, default=6, metavar='N', help='images, spread over them, to draw kernels '
                        'and Grad-CAM of (default: 6)')
    parser.add_argument('--layers', nargs='+', metavar='NAME', help='layers to draw the kernels of (default: the last '
                        'of each stage)')
    parser.add_argument('--cam-layer', default='backbone', metavar='NAME', help='module whose last maps Grad-CAM '
                        'explains (default: backbone)')
    parser.add_argument('--cam', choices=['grad-cam', 'grad-cam++'], default='grad-cam', help='Grad-CAM, as in DCDC, '
                        'Fig. 6, or Grad-CAM++, as in ODConv, Fig. 5 (default: grad-cam)')
    parser.add_argument('--batch-size', type=int, metavar='N', help="images run at once (default: the config's)")
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 … (default: cpu)')
    args = parser.parse_intermixed_args(argv)  # images after options too
    for name in ('max_images', 'drawn', 'batch_size'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1, but is {value}')
    if bool(args.images) == args.dataset:
        parser.error('name images or folders, or give --dataset, one of both')
    if args.out.exists() and not (args.out.is_dir() and ((args.out / PAGE).exists() or not any(args.out.iterdir()))):
        parser.error(f'--out {args.out} exists and is no report of this tool; name another folder')
    return args


def analyse(args: argparse.Namespace, command: str) -> tuple[str, dict, dict[str, bytes]]:
    """The page, the numbers and the figures by name.

    Raises:
        FileNotFoundError, ImportError, ValueError: of the user's making; the message says what to do.
    """
    from rich.progress import track

    from dynconv_mm.analysis import report
    from dynconv_mm.analysis.attention_statistics import AttentionStatistics
    from dynconv_mm.analysis.phi_variance import PhiVariance
    from dynconv_mm.analysis.trained_model import Spread, load_with_images
    chosen = None if args.dataset else args.images, args.max_images, args.device
    trained, images = load_with_images(args.config, args.checkpoint, *chosen)
    beside = [load_with_images(*paths, *chosen) for paths in args.beside]
    if beside and not all(network.is_classifier for network, _ in ((trained, images), *beside)):
        raise ValueError('--beside is for Grad-CAM, which is for classifiers of mmpretrain alone')
    name = Path(args.config).stem
    numbers = dict(command=command, config=args.config, checkpoint=args.checkpoint, images=len(images))
    about = [f'Made from {len(images)} images by: {command}']
    sections = []
    batch_size = args.batch_size or trained.config.test_dataloader.batch_size
    for collector in report.collect(trained, images, batch_size,
                                    lambda batches, total: track(batches, 'collecting', total)):
        if isinstance(collector, AttentionStatistics):
            numbers['attentions'] = collector.to_json()
            sections += report.attention_sections(collector)
        elif isinstance(collector, PhiVariance):
            numbers['phi'] = collector.to_json()
            sections.append(report.phi_section(collector))
        else:
            numbers['kernels'] = collector.to_json()
            sections.append(report.kernel_section(trained, collector, Spread(images, args.drawn), args.layers))
    if trained.is_classifier:
        titles = numbered([Path(config).stem for config, _ in (*args.beside, (args.config, args.checkpoint))])
        networks = {title: (network, Spread(own, args.drawn))
                    for title, (network, own) in zip(titles, (*beside, (trained, images)))}
        section, numbers['grad_cam'] = report.cam_section(networks, args.cam_layer, args.cam)
        sections.append(section)
    else:
        about.append('Grad-CAM is left out: it is for classifiers.')
    if not sections:
        raise ValueError(f'{args.config} has nothing to show: no ODConv, DyConv, CondConv, DCD, involution or DCDC '
                         'layer, and it is no classifier')
    return (report.render(f'What {name} learned', about, sections), numbers,
            {section.name: section.png for section in sections})


def check_device(name: str) -> None:
    """Raise a ValueError unless there is such a device."""
    import torch
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # of torch, by its build and the machine
        reason = str(error).splitlines()[0]
        raise ValueError(f'--device {name} cannot be used: {reason}') from error


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    command = shlex.join(['python', 'tools/analysis_tools/visualize_attention.py',
                          *(sys.argv[1:] if argv is None else argv)])
    try:
        check_device(args.device)
        page, numbers, pngs = analyse(args, command)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise SystemExit(f'visualize_attention: {error}') from error

    from dynconv_mm.atomic_write import atomic_write
    contents = {f'{name}.png': png for name, png in pngs.items()}
    contents |= {NUMBERS: json.dumps(numbers, indent=1).encode(), PAGE: page.encode()}
    for name in FIGURES:  # of a report that was there
        (args.out / f'{name}.png').unlink(missing_ok=True)
    for name, content in contents.items():
        with atomic_write(args.out / name) as partial:
            partial.write_bytes(content)
    print(f'written: {args.out / PAGE} ({len(page) / 1024:.0f} KB), {NUMBERS} and {len(pngs)} figures')


if __name__ == '__main__':
    main()

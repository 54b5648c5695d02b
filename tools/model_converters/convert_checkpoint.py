#!/usr/bin/env python3
"""Convert an official checkpoint of ODConv, DCD, RedNet, SAN, KernelWarehouse or FDConv to one of this package, or
back.

What is in the file is recognised by its names and shapes. Nothing is written unless every weight has its place in the
network, by name and shape, and every place its weight.
"""
from __future__ import annotations

import argparse
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METHODS = dict(odconv='ODConv', dcd='DCD', rednet='RedNet', san='SAN', kw='KernelWarehouse', fdconv='FDConv',
               static='static')


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', type=Path, help='an official checkpoint of a classifier, or of a Faster '
                        'or Mask R-CNN on mmdet 2.x; loaded without running any code that it may hold')
    parser.add_argument('dst', metavar='DST', type=Path, nargs='?', help='file to write (default: where the detection '
                        'configs look for it, such as checkpoints/odconv4x-resnet50.pth; of a detector '
                        'checkpoints/CONFIG.pth, with --reverse checkpoints/NAME_official.pth.tar)')
    parser.add_argument('--method', choices=['auto', *METHODS], default='auto', help="refuse another method's "
                        "checkpoint; 'static' is the MobileNetV2 that ODConv compares with (default: auto, whichever "
                        'it is)')
    parser.add_argument('--reverse', action='store_true', help='SRC is a checkpoint of this package, which gets the '
                        'official names, to compare with the original code')
    parser.add_argument('--backbone-only', action='store_true', help='convert the backbone alone, without its '
                        'classifier or detector')
    parser.add_argument('--overwrite', action='store_true', help='replace DST if it is there')
    return parser


def default_target(architecture, reverse: bool) -> Path:
    """Where a converted checkpoint goes that was not given a place."""
    name = architecture.name if architecture.detector is None else Path(architecture.config).stem
    return Path('checkpoints', f'{name}_official.pth.tar' if reverse else f'{name}.pth')


def check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Raise a ValueError unless ``target`` may be written."""
    if target.is_dir():
        raise ValueError(f'DST, {target}, is a folder: name a file in it')
    if target.exists() and target.samefile(source):
        raise ValueError(f'SRC and DST are the same file, {target}')
    if target.exists() and not overwrite:
        raise ValueError(f'{target} is there already: name another DST, or add --overwrite')


def describe(architecture) -> str:
    """An architecture in words."""
    if architecture.method in ('rednet', 'san'):
        network = f'{METHODS[architecture.method]}-{architecture.depth}'
    elif architecture.arch is not None:
        network = f'{METHODS[architecture.method]} ConvNeXt-{architecture.arch[0].upper()}'
    else:
        network = METHODS[architecture.method] + (f' MobileNetV2 of width {architecture.widen_factor:g}'
                                                  if architecture.depth is None else f' ResNet-{architecture.depth}')
    words = [network]
    if architecture.kernel_num is not None:
        words.append(f'{architecture.kernel_num} kernel{"s" if architecture.kernel_num > 1 else ""}')
    words += [f'{name} {value:g}' for name, value in architecture.extra.items()]
    if architecture.detector is not None:
        words.append({'faster-rcnn': 'Faster R-CNN', 'mask-rcnn': 'Mask R-CNN'}[architecture.detector])
    words.append('the backbone alone' if architecture.num_classes is None else f'{architecture.num_classes} classes')
    return ', '.join(words)


def report(conversion, target: Path, reverse: bool) -> str:
    """What was converted and how to use it, a line each."""
    from dynconv_mm.conversion.checkpoint_file import unwrap
    from dynconv_mm.conversion.released_checkpoints import STATISTICS
    architecture, weights = conversion.architecture, unwrap(conversion.checkpoint)
    params = sum(value.numel() for name, value in weights.items() if not name.endswith((*STATISTICS, '.temperature')))
    config = ROOT / 'configs' / architecture.config
    exists = '::' in architecture.config or config.is_file()
    shown = architecture.config if '::' in architecture.config else f'configs/{architecture.config}'
    options = ' '.join(f'{name}={value}' for name, value in architecture.options.items())
    if not exists:
        arguments = ', '.join(f'{name}={value!r}' for name, value in architecture.backbone_arguments.items())
        shown = f'none of this package; the backbone is {architecture.backbone_class.__name__}({arguments})'
    lines = [('network', describe(architecture)), ('parameters', f'{params / 1e6:.2f} M, {len(weights)} tensors'),
             ('config', shown)]
    lines += [('its options', options)] if options and exists else []
    lines += [('note', remark) for remark in conversion.remarks]
    if not reverse and config.is_file() and architecture.num_classes is not None:
        package = 'mmpretrain' if architecture.detector is None else 'mmdet'
        command = f'mim test {package} {shown} --checkpoint {shlex.quote(str(target))}'
        lines.append(('test it', f'{command} --cfg-options {options}' if options else command))
    if not reverse and architecture.detector is None:
        start = sorted(config.stem for config in (ROOT / 'configs' / architecture.method).glob('*_coco.py')
                       if f"'checkpoints/{architecture.name}.pth'" in config.read_text(encoding='utf-8'))
        lines += [('start from it', ', '.join(start))] if start else []
    width = max(len(label) for label, _ in lines)
    return '\n'.join([f'written: {target}', *(f'  {label:{width}}  {text}' for label, text in lines)])


def main(argv: list[str] | None = None) -> None:
    command = parser()
    args = command.parse_args(argv)
    from dynconv_mm.conversion import from_released, read_checkpoint, to_released, write_checkpoint
    try:
        if args.dst is not None and args.src.exists():
            check_target(args.src, args.dst, args.overwrite)
        convert = to_released if args.reverse else from_released
        conversion = convert(read_checkpoint(args.src), args.method, args.backbone_only)
        target = args.dst or default_target(conversion.architecture, args.reverse)
        check_target(args.src, target, args.overwrite)
        write_checkpoint(target, conversion.checkpoint)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'{command.prog}: {error}') from error
    print(report(conversion, target, args.reverse))


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""Measure networks beside the static ones they stand in for, or check and calibrate the execution plans.

Networks are timed in turns in one process, and their memory in a process each; leave the machine alone meanwhile.
"""
from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import re
import shlex
import sys
from pathlib import Path

OWN_RECORD = ''  # in place of a file


def calibrate(args: argparse.Namespace) -> bool:
    """Whether all backends passed their checks."""
    import torch
    from rich.progress import track

    from dynconv_mm.analysis import calibration, self_check
    from dynconv_mm.atomic_write import write_text
    torch.set_num_threads(args.threads[0])
    device = torch.device(args.device, torch.cuda.current_device()) if args.device == 'cuda' else torch.device('cpu')
    if device.type == 'cuda' and importlib.util.find_spec('triton') is not None:
        print('compiling the Triton kernels', flush=True)
        self_check.compile_kernels(device)
    checks = self_check.check(device)
    milliseconds, totals = self_check.measure(device, checks, args.rounds, track)
    if args.calibrate == OWN_RECORD:
        file = self_check.write_record(device, self_check.make_record(checks, milliseconds))
    else:
        file = Path(args.calibrate)
        costs = milliseconds['float32'] if device.type == 'cpu' else milliseconds
        write_text(file, json.dumps(dict(quantities=list(calibration.QUANTITIES), milliseconds=costs), indent=1) + '\n')
    print(self_check.report(device, checks, totals))
    print(f'written: {file}')
    return all(found.problem is None for found in checks)


def section_suffix(args: argparse.Namespace) -> str:
    """Of the name of the page's section, and of its file: '' for backbones in PyTorch."""
    from dynconv_mm.analysis.benchmark import is_detector
    kind = 'detectors' if is_detector(args.networks[0]) else args.runtime
    return '' if kind == 'pytorch' else f'-{kind}'


def section_file(args: argparse.Namespace) -> Path:
    """Where the results of a section go."""
    return args.output.with_name(f'{args.output.name}{section_suffix(args)}.json')


def compare(args: argparse.Namespace) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from dynconv_mm.analysis import benchmark
    from dynconv_mm.atomic_write import write_text
    groups: dict[str, list[str]] = {}
    for name in args.networks:
        groups.setdefault(benchmark.static_network(name), []).append(name)
    height, width = args.size
    settings = [benchmark.Setting(mode == 'training', batch, threads, height, args.device, args.dtype,
                                  args.channels_last, width, args.runtime, args.dynamic)
                for mode in args.modes for batch in (args.batches if mode == 'inference' else args.training_batches)
                for threads in args.threads]
    machine = benchmark.describe_machine(args.runtime)
    section, data = f'benchmark{section_suffix(args)}', section_file(args)
    commands, results = [shlex.join(['python', *sys.argv])], []
    if args.append:
        earlier = json.loads(data.read_text(encoding='utf-8'))
        if earlier['machine'] != machine:
            sys.exit(f'--append adds to tables of one machine, but {data} is of {earlier["machine"]}, and this is '
                     f'{machine}: leave it out')
        commands = [*earlier['commands'], *commands]
        earlier = [benchmark.Result(**dict(row, setting=benchmark.Setting(**row['setting'])))
                   for row in earlier['results']]
        again = {*groups, *itertools.chain(*groups.values())}
        results = [result for result in earlier if result.network not in again or result.setting not in settings]
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task('', total=len(settings) * len(groups) * args.rounds)
        for setting, (static, networks) in itertools.product(settings, groups.items()):
            mode = 'training' if setting.training else 'inference'
            progress.update(task, description=f'{static}, {mode}, batch {setting.batch}, {setting.threads} thread(s)')

            def rounds():
                for number in range(args.rounds):
                    yield number
                    progress.advance(task)

            # what is compiled or exported has its own plans, and the memory of a fresh process is the compiler's
            plans, memory = (args.plans, not args.no_memory) if args.runtime == 'pytorch' else (['auto'], False)
            results += benchmark.compare(networks, plans, setting, rounds(), memory)
            # what there is, should the rest be interrupted
            rows = [dict(result._asdict(), setting=result.setting._asdict()) for result in results]
            write_text(data, json.dumps(dict(commands=commands, machine=machine, results=rows), indent=1) + '\n')
    table = benchmark.markdown(results, machine)
    page = args.output.with_suffix('.md')
    old = page.read_text(encoding='utf-8') if page.exists() else ''
    place = re.compile(rf'(<!-- {section} -->\n).*?(<!-- /{section} -->)', re.DOTALL)
    if not place.search(old):
        old += f'<!-- {section} -->\n<!-- /{section} -->\n'
    listed = '\n'.join(f'`{command}`  ' for command in commands)  # the spaces are a new line in Markdown
    write_text(page, place.sub(lambda match: f'{match[1]}\n{listed}\n\n{table}\n{match[2]}', old))
    print(table)
    print(f'written: {page} and {data}')


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--networks', nargs='+', metavar='NAME',
                        default=['odconv1x-resnet50', 'odconv4x-resnet50', 'odconv1x-mobilenet-v2-w100',
                                 'odconv4x-mobilenet-v2-w100', 'rednet50', 'dcdc-resnet50'],
                        help='named as in configs/; each is compared with the same network without its method. Whole '
                        'detectors, such as faster-rcnn_odconv1x-r50_fpn_1x_coco, have a section of their own of '
                        'PATH.md (default: %(default)s)')
    parser.add_argument('--runtime', choices=['pytorch', 'folded', 'compile', 'onnxruntime', 'openvino'],
                        default='pytorch',
                        help='what runs the networks, the static ones too: folded is PyTorch with batch norms folded '
                        'into the convolutions, compile is torch.compile with weights as constants, onnxruntime and '
                        'openvino run them exported for a fixed batch; all but pytorch for inference alone, in a '
                        'section of their own of PATH.md (default: pytorch)')
    parser.add_argument('--dynamic', action='store_true', help='with --runtime onnxruntime or openvino: export for any '
                        'batch and size')
    parser.add_argument('--modes', nargs='+', choices=['inference', 'training'], help='default: both; but inference '
                        'where --runtime is not pytorch')
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 8], help='images in a batch of inference '
                        '(default: 1 8)')
    parser.add_argument('--training-batches', nargs='+', type=int, default=[8], help='of training (default: 8)')
    parser.add_argument('--threads', nargs='+', type=int, default=[1], help='threads to compute with (default: 1)')
    parser.add_argument('--plans', nargs='+', default=['auto', 'grouped'], help='execution plans (default: auto '
                        "grouped, the package's choice and what everybody else does)")
    parser.add_argument('--rounds', type=int, default=None,
                        help='measurements of each (default: 9; with --calibrate 3)')
    parser.add_argument('--size', type=int, nargs='+', default=[224], metavar='PIXELS', help='height and width of the '
                        'images, or both as one (default: 224)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32',
                        help='precision, by autocast (default: float32)')
    parser.add_argument('--channels-last', action='store_true', help='memory format of weights and images')
    parser.add_argument('--no-memory', action='store_true', help='do not measure the peak memory')
    parser.add_argument('--output', type=Path, default=Path('benchmark'), metavar='PATH', help='write PATH.json and '
                        "PATH.md; in a PATH.md that is there, what stands between '<!-- benchmark -->' and "
                        "'<!-- /benchmark -->' is replaced (default: benchmark)")
    parser.add_argument('--append', action='store_true', help='keep the tables that are there, of the same machine, '
                        'and add to them; what is measured again is replaced')
    parser.add_argument('--calibrate', nargs='?', const=OWN_RECORD, metavar='FILE',
                        help="instead check on --device that every plan gives the equation's values and gradients in "
                        'float32, float16 and bfloat16, and measure layers by those that do (some minutes, with '
                        "nothing else running); plan='auto' then chooses by what was found, which is kept in the "
                        "user's cache for this device and version of torch. With FILE, write the costs alone, as the "
                        'package reads them from dynconv_mm/functional/costs_cpu.json and costs_gpu.json. '
                        'Exits with 1 if a plan failed')
    args = parser.parse_args(argv)
    args.rounds = args.rounds or (9 if args.calibrate is None else 3)
    for name in ('batches', 'training_batches', 'threads', 'rounds', 'size'):
        values = getattr(args, name)
        if min(values if isinstance(values, list) else [values]) < 1:
            parser.error(f'--{name.replace("_", "-")} must be positive, but is {values}')
    if len(args.size) > 2:
        parser.error(f'--size must be one or two ints, height and width, but is {args.size}')
    args.size = (args.size[0], args.size[1] if len(args.size) == 2 and args.size[0] != args.size[1] else None)
    if args.runtime == 'pytorch':
        args.modes = args.modes or ['inference', 'training']
    else:
        for name, value in (('modes', args.modes or ['inference']), ('device', args.device), ('dtype', args.dtype),
                            ('channels-last', args.channels_last)):
            if value not in (['inference'], 'cpu', 'float32', False):
                parser.error(f'--{name} must be left out with --runtime {args.runtime}, but is {value}')
        args.modes = ['inference']
    if args.dynamic and args.runtime not in ('onnxruntime', 'openvino'):
        parser.error(f'--dynamic is for --runtime onnxruntime or openvino, but that is {args.runtime}')
    if args.append and not section_file(args).is_file():
        parser.error(f'--append adds to {section_file(args)}, but there is none: leave it out the first time')
    target = Path(args.calibrate) if args.calibrate else args.output
    if not target.parent.is_dir():
        parser.error(f'there is no folder {target.parent} to write {target.name} to: make it first')
    try:
        check(args)
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    return args


def check(args: argparse.Namespace) -> None:
    """Raise an error of what the arguments name that is not there."""
    import torch

    from dynconv_mm.analysis.benchmark import EXPORTED, is_detector, static_network
    from dynconv_mm.conversion.export import import_runtime
    from dynconv_mm.functional.mixture_conv import check_plan
    for name in args.networks:
        static_network(name)
    detectors = [name for name in args.networks if is_detector(name)]
    if detectors and (len(detectors) < len(args.networks) or args.runtime != 'pytorch'):
        raise ValueError(f'--networks must be either backbones or detectors, and detectors run by PyTorch as they are, '
                         f'without --runtime, but there is {detectors[0]}')
    for plan in args.plans:
        check_plan(plan)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('--device cuda: torch finds no GPU on this machine')
    for package in ('onnx', 'onnxruntime', args.runtime) if args.runtime in EXPORTED else ():
        import_runtime(package)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.calibrate is None:
        compare(args)
    elif not calibrate(args):
        sys.exit(1)


if __name__ == '__main__':
    main()

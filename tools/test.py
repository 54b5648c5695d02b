#!/usr/bin/env python3
"""Test a checkpoint of a config of mmdet, mmpretrain or another toolbox on mmengine, with this package's modules."""
from __future__ import annotations

import argparse
from pathlib import Path

from launch import add_options, build_runner, check_checkpoint, read_config

# by the toolbox of the config: the metric that keeps predictions, and what has its hook draw them
DUMP = {'mmdet': 'DumpDetResults'}
DRAW = {'mmdet': ('draw', 'test_out_dir'), 'mmpretrain': ('enable', 'out_dir')}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='the checkpoint file')
    add_options(parser)
    parser.add_argument('--out', metavar='FILE', help='keep the predictions in this pickle file')
    parser.add_argument('--show-dir', metavar='DIR', help='draw the predictions into this folder')
    args = parser.parse_args(argv)
    if args.out and Path(args.out).suffix not in ('.pkl', '.pickle'):
        parser.error(f'--out must be named *.pkl or *.pickle, but is {args.out}')
    try:
        check_checkpoint(args.checkpoint)
        cfg = read_config(args, ('test_dataloader', ))
    except (OSError, KeyError, ValueError, ImportError) as error:
        raise SystemExit(f'{parser.prog}: {args.config}: {error}') from error
    scope = cfg.get('default_scope')
    if args.show_dir:
        if scope not in DRAW:
            parser.error(f'--show-dir draws for {" and ".join(DRAW)}, but {args.config} is of {scope}')
        switch, folder = DRAW[scope]
        cfg.default_hooks.visualization.update({switch: True, folder: str(Path(args.show_dir).resolve())})
    cfg.load_from = args.checkpoint
    runner = build_runner(cfg, args.quiet)
    if args.out:
        from mmengine.registry import METRICS
        runner.test_evaluator.metrics.append(METRICS.build(dict(type=DUMP.get(scope, 'DumpResults'),
                                                                out_file_path=args.out)))
    runner.test()


if __name__ == '__main__':
    main()

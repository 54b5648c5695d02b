#!/usr/bin/env python3
"""Train the model of a config of mmdet, mmpretrain or another toolbox on mmengine, with this package's modules."""
from __future__ import annotations

import argparse

from launch import add_options, build_runner, check_checkpoint, read_config


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the config file')
    add_options(parser)
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='go on from this checkpoint, '
                        'or without a name from the last one in the work folder, if there is any')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate from the batch size of '
                        'the recipe, which the config names in auto_scale_lr, to the actual one')
    args = parser.parse_args(argv)
    try:
        cfg = read_config(args, ('train_dataloader', 'val_dataloader'))
        if args.resume:
            cfg.resume, cfg.load_from = True, None if args.resume == 'auto' else args.resume
        check_checkpoint(cfg.get('load_from'))
    except (OSError, KeyError, ValueError, ImportError) as error:
        raise SystemExit(f'{parser.prog}: {args.config}: {error}') from error
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            parser.error(f'--auto-scale-lr: {args.config} has no auto_scale_lr with a base_batch_size')
        cfg.auto_scale_lr.enable = True
    build_runner(cfg, args.quiet).train()


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""Write a checkpoint with which a dynamic network starts as a static one: the same function, ready to learn more.

STATIC may be of torchvision, timm (state dicts of their ResNets and MobileNetV2s), mmpretrain or mmdet (whole models or
backbones). A classifier's checkpoint gives a detector its backbone; one of a detector of the same kind gives it all.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

    from dynconv_mm.conversion import WarmStart

IMAGE_SIZE = 96  # pixels, of the random images for the check
DOCS = 'docs/warm_start.md'
REASONS = {  # of what is changed
    'freeze_attention': "With CONFIG's frozen_stages or norm_eval alone, attentions or their norms would stay as they "
                        'are, which have learned nothing yet.',
    'frozen_stages': "CONFIG's frozen_stages or norm_eval would keep attentions as they are, which have learned "
                     'nothing yet; a backbone of this package can freeze the rest of its stages alone.',
}
TOLERANCE = 1e-5  # of outputs in float64, relative to the largest; the weights are of float32


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='of a classifier or detector with dynamic convolutions')
    parser.add_argument('static', metavar='STATIC', help='checkpoint of the static network')
    parser.add_argument('dst', metavar='DST', type=Path, help='checkpoint to write')
    parser.add_argument('--noise', type=float, default=0.01,
                        help='relative standard deviation of the differences between the kernels of a layer, without '
                             'which they would stay alike; the function does not change (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', metavar='PART',
                        help='parts of the model to carry, such as backbone neck (all that STATIC has)')
    parser.add_argument('--train-config', metavar='FILE', type=Path,
                        help='config to write that inherits CONFIG, starts from DST and lets attentions and kernels '
                             'learn as they should')
    parser.add_argument('--seed', type=int, default=0, help='of everything random (default: %(default)s)')
    args = parser.parse_args(argv)
    if not Path(args.config).is_file():
        parser.error(f'there is no config {args.config!r}')
    if args.dst.is_dir():
        parser.error(f'DST {args.dst} is a folder; name a file')
    if args.dst.exists() and Path(args.static).exists() and args.dst.samefile(args.static):
        parser.error('DST is STATIC, which is kept; name another file')

    from dynconv_mm.conversion import CheckpointError
    try:
        convert(args)
    except (CheckpointError, FileNotFoundError, ImportError, ValueError, KeyError) as error:
        raise SystemExit(f'{parser.prog}: {error}') from error


def convert(args: argparse.Namespace) -> None:
    """Make, check, write and explain the checkpoint."""
    import torch
    from mmengine.config import Config

    from dynconv_mm.conversion import read_checkpoint, read_state_dict, warm_start, write_checkpoint

    config = Config.fromfile(args.config)
    state_dict = read_state_dict(args.static)
    torch.manual_seed(args.seed)
    model = build(config)
    made = warm_start(model, state_dict, args.parts, args.noise)
    difference = None if made.impossible else check(made, model)
    weights = {name: value for name, value in model.state_dict().items() if name.partition('.')[0] in made.carried}
    meta = read_checkpoint(args.static).get('meta')
    classes = meta.get('dataset_meta') if isinstance(meta, dict) and not made.left else None
    write_checkpoint(args.dst, dict(state_dict=weights, meta=dict(dataset_meta=classes) if classes else {}))
    report(args, config, model, made, difference)


def build(config: Config) -> nn.Module:
    """The model of a config, with fresh weights."""
    from mmengine.config import ConfigDict
    from mmengine.logging import MMLogger
    from mmengine.registry import MODELS, init_default_scope

    import dynconv_mm  # noqa: F401  registers what configs name
    if 'model' not in config:
        raise ValueError(f'the config {config.filename} has no model')
    init_default_scope(config.get('default_scope', 'mmengine'))
    MMLogger.get_instance('warm_start').setLevel('ERROR')  # else every fresh parameter is reported
    model = MODELS.build(ConfigDict(without_checkpoints(config.model)))
    model.init_weights()
    return model


def without_checkpoints(cfg: object) -> object:
    """A config without initialisation by checkpoints, which STATIC replaces."""
    if isinstance(cfg, dict):
        return {key: None if key == 'init_cfg' and isinstance(value, dict) and 'checkpoint' in value
                else without_checkpoints(value) for key, value in cfg.items()}
    return [without_checkpoints(value) for value in cfg] if isinstance(cfg, list) else cfg


def check(made: WarmStart, model: nn.Module) -> float:
    """The relative difference between the outputs of both networks, for which rounding must be the reason."""
    import torch

    from dynconv_mm.conversion import CheckpointError, max_difference

    channels = next(iter(made.static.backbone.parameters())).shape[1]
    image = torch.randn(2, channels, IMAGE_SIZE, IMAGE_SIZE)
    differences = {}
    for dtype in (torch.float64, torch.float32):  # there and back again without loss
        networks = (network.to(dtype) for network in (made.static, model))
        differences[dtype] = max_difference(*networks, image.to(dtype), with_head='head' in made.carried)
    if not differences[torch.float64] <= TOLERANCE:  # NaN is refused too
        raise CheckpointError(f'the outputs of the two networks differ by {differences[torch.float64]:.1e} of the '
                              'largest, which is no rounding; nothing was written')
    return differences[torch.float32]


def report(args: argparse.Namespace, config: Config, model: nn.Module, made: WarmStart,
           difference: float | None) -> None:
    """Print what was carried, and how to go on."""

    def count(module: nn.Module) -> float:
        return sum(parameter.numel() for parameter in module.parameters()) / 1e6

    print(f'{args.static}: {made.naming}')
    for part in made.carried:
        child, static = getattr(model, part), getattr(made.static, part)
        print(f'carried: {part}, a {type(child).__name__}: {count(static):.2f}M parameters became {count(child):.2f}M')
    for part, why in made.left.items():
        print(f'not carried: {part}, {why}')
    if made.unused:
        print(f'not used of STATIC ({len(made.unused)}): {shown(made.unused)}')
    if made.impossible:
        kinds = sorted({type(layer).__name__ for layer in made.impossible.values()})
        print(f'NOT the same function: {len(made.impossible)} layers ({", ".join(kinds)}) predict their kernels and '
              f'cannot start as static convolutions: {shown(list(made.impossible))}')
        print(f'as they were before ({len(made.fresh)}): {shown(made.fresh)}')
        print('The rest has the same names and shapes in both networks and was loaded.')
    else:
        print(f'the same function: on random images the outputs differ by at most {difference:.1e} of the largest, at '
              'temperatures 1 and 30')
    changes = training(args.dst, config, model, made.carried == ['backbone'])
    print(f'wrote {args.dst}')
    if args.train_config is None:
        print('To train from it, let --train-config write a config, or add to your own:')
        print('  --cfg-options', *options(changes))
        print(f'and multiply the learning rate of kernels as {DOCS} says')
    else:
        write_config(args.train_config, args.config, changes, kernel_keys(config, model, made.carried))
        print(f'wrote {args.train_config}; train with it: it starts from {args.dst}, and kernels learn at the rates '
              f'that {DOCS} explains')
    for name, why in REASONS.items():
        if name in changes['model']['backbone']:
            print(f'({why})')


def training(dst: Path, config: Config, model: nn.Module, backbone_alone: bool) -> dict:
    """What to change in a config so that a training starts from DST and attentions learn."""
    init_cfg, backbone = config.model.backbone.get('init_cfg'), model.backbone
    changes: dict = dict(model=dict(backbone={}))
    ours = changes['model']['backbone']
    if backbone_alone and isinstance(init_cfg, dict) and 'checkpoint' in init_cfg:
        ours['init_cfg'] = dict(checkpoint=str(dst), prefix='backbone.')
    else:
        changes['load_from'] = str(dst)
        if init_cfg is not None:
            ours['init_cfg'] = None
    if getattr(backbone, 'frozen_stages', -1) > 0 or getattr(backbone, 'norm_eval', False):
        if not hasattr(backbone, 'freeze_attention'):
            ours.update(frozen_stages=-1, norm_eval=False)
        elif backbone.freeze_attention:
            ours['freeze_attention'] = False
    return changes


def options(changes: dict, prefix: str = '') -> list[str]:
    """As of --cfg-options."""
    found = []
    for name, value in changes.items():
        found += options(value, f'{prefix}{name}.') if isinstance(value, dict) else [f'{prefix}{name}={value}']
    return found


def kernel_keys(config: Config, model: nn.Module, parts: list[str]) -> dict[str, dict[str, float]]:
    """``paramwise_cfg.custom_keys`` by which the kernels of the parts carried learn as fast as static ones."""
    from dynconv_mm.conversion import kernel_rates

    optimizer = config.get('optim_wrapper', {}).get('optimizer', {}).get('type', 'SGD')
    rates = kernel_rates(model, adaptive=str(optimizer).startswith('Adam'))
    return {name: dict(lr_mult=rate, decay_mult=1 / rate) for name, rate in rates.items()
            if rate != 1 and name.partition('.')[0] in parts}


def write_config(path: Path, base: str, changes: dict, keys: dict[str, dict[str, float]]) -> None:
    """A config that inherits another one."""
    import os

    from mmengine.config import Config

    from dynconv_mm.atomic_write import write_text
    settings = dict(changes)
    if keys:
        settings['optim_wrapper'] = dict(paramwise_cfg=dict(custom_keys=keys))
    relative = os.path.relpath(Path(base).resolve(), path.resolve().parent)
    write_text(path, f'# written by warm_start.py: how to train from a warm start, see {DOCS}\n'
                     f'_base_ = [{relative!r}]\n{Config(settings).pretty_text}')


def shown(names: list[str], at_most: int = 6) -> str:
    rest = len(names) - at_most
    return ', '.join(names[:at_most]) + (f', … {rest} more' if rest > 0 else '')


if __name__ == '__main__':
    main()

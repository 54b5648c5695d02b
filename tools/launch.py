"""What train.py and test.py share: the options that OpenMMLab's tools have, and the runner of a config."""
from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

LONG = 20  # lines


class Options(argparse.Action):
    """``key=value`` pairs, read by mmengine's DictAction, which is imported when there are any."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from mmengine.config import DictAction
        DictAction([option_string], self.dest)(parser, namespace, values, option_string)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of both."""
    parser.add_argument('--work-dir', metavar='DIR', help='folder for logs, checkpoints and results (default: '
                        'work_dirs/NAME-OF-THE-CONFIG, unless the config names one)')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='settings of the config '
                        "to change, such as model.backbone.depth=18 or 'scale=(640, 480)'")
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='how processes '
                        'were started (default: none, one process)')
    parser.add_argument('--quiet', action='store_true', help='print no long lists, such as the whole config, which are '
                        'in the log file')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def check_checkpoint(name: str | None) -> None:
    """Raise a ValueError unless a checkpoint is there, as far as that can be told: it may be of another machine."""
    if name and '://' not in name and not Path(name).is_file():
        raise ValueError(f'there is no checkpoint {name!r}')


def read_config(args: argparse.Namespace, loaders: Sequence[str]) -> Config:
    """The config that the options ask for, with this package's modules registered.

    Args:
        args (argparse.Namespace): the options.
        loaders (Sequence[str]): the names of the data loaders that will be used, whose classes are checked.

    Raises:
        KeyError, ValueError: there is no such config or setting, or its classes do not fit.
        ImportError: the config is for a toolbox that is not installed.
    """
    from mmengine.config import Config

    import dynconv_mm  # noqa: F401  registers the layers, backbones and hooks
    from dynconv_mm.compat.class_names import check_classes
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not Path(args.config).is_file():
        raise ValueError('there is no such config')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    check_classes(cfg, loaders)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    if cfg.get('default_scope') == 'mmpretrain':  # whose own tools fill its loaders in so
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            loader = cfg.get(name) or {}
            for key, value in dict(pin_memory=True, persistent_workers=loader.get('num_workers', 0) > 0,
                                   collate_fn=dict(type='default_collate')).items():
                if loader:
                    loader.setdefault(key, value)
    return cfg


class Quiet:
    """A runner whose console shows no message of :data:`LONG` lines or more."""

    def build_logger(self, *args, **kwargs) -> logging.Logger:
        """mmengine's, which writes them to the file alone."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: record.getMessage().count('\n') + 1 < LONG)
        return logger


def build_runner(cfg: Config, quiet: bool = False) -> Runner:
    """The runner of a config: mmengine's, or the one that its ``runner_type`` names.

    Raises:
        KeyError: mmengine's, of a type that is not registered; the message ends with names close to it.
    """
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner
    try:
        if quiet and (runner := RUNNERS.get(cfg.get('runner_type', 'Runner'))) is not None:
            return type(runner.__name__, (Quiet, runner), {}).from_cfg(cfg)
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    except KeyError as error:
        unknown = re.match(r'(\S+) is not in the \S+::(.+?) registry', str(error.args[0]))
        if unknown is None:
            raise
        raise KeyError(error.args[0] + _close_names(*unknown.groups())) from error


def _close_names(name: str, registry: str) -> str:
    """Of what the root registry of that name and those of all toolboxes below it hold."""
    import mmengine.registry

    from dynconv_mm.compat.close_names import did_you_mean
    nodes = [root for root in vars(mmengine.registry).values() if getattr(root, 'name', None) == registry]
    for node in nodes:
        nodes.extend(node.children.values())
    return did_you_mean(name, [known for node in nodes for known in node.module_dict])

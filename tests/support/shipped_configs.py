"""The configs of ``configs/``: their names, and each as a copy that can be changed at will."""
from __future__ import annotations

import copy
import functools
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RUNNABLE = sorted(path for path in CONFIGS.rglob('*.py') if path.parent.name != '_base_')
NAMES = [path.relative_to(CONFIGS).as_posix() for path in RUNNABLE]
CLASSIFIERS = [name for name in NAMES if name.endswith(('_in1k.py', '-thin_digits.py'))]
DETECTORS = [name for name in NAMES if name not in CLASSIFIERS]
IMAGENET = [name for name in NAMES if name.endswith('_in1k.py')]

#: those that are not a method's network by its first recipe: of other arguments, or trained in another way
VARIANTS = [name for name in IMAGENET if not re.fullmatch(
    r'\w+/(?:[a-z\d]+-)?(?:[a-z]+\d+|mobilenet-v2-w\d{3})_8xb32_in1k\.py', name)]


@functools.cache
def read(name: str) -> Config:
    """A config as it is."""
    return Config.fromfile(CONFIGS / name)


def load(name: str) -> Config:
    """A config to be changed at will, in whose scope the test goes on."""
    config = copy.deepcopy(read(name))
    init_default_scope(config.default_scope)
    return config

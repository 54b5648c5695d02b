"""The names that the release of SAN (https://github.com/hszhao/SAN) gives its modules."""
from __future__ import annotations

import re
from collections.abc import Iterable

from ..models.backbones.san import SAN


def san_modules(names: Iterable[str]) -> dict[str, str]:
    """The released modules' names to this package's, of the network that official names of weights are of.

    Here a stage has all from its pooling to its last norm, in order; there its 1×1 convolution and norm are beside it,
    and stages are counted from 0. Empty where the names are of no SAN.

    Args:
        names (Iterable[str]): of a backbone's weights.
    """
    names = set(names)
    if not {'conv_in.weight', 'conv0.weight'} <= names:
        return {}
    return _modules([len({name.split('.')[1] for name in names if re.match(rf'layer{stage}\.\d+\.', name)})
                     for stage in range(5)])


def san_modules_of(depth: int) -> dict[str, str]:
    """As :func:`san_modules`, of a depth."""
    return _modules(SAN.arch_settings[depth])


def _modules(stage_blocks: Iterable[int]) -> dict[str, str]:
    modules = {}
    for stage, blocks in enumerate(stage_blocks):
        parts = [f'conv{stage}', *(f'layer{stage}.{block}' for block in range(blocks)), f'bn{stage}']
        modules.update((part, f'layer{stage + 1}.{place}') for place, part in enumerate(parts, 1))  # 0 is the pooling
    return modules

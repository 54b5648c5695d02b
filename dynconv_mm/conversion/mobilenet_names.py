"""The names that releases give the modules of MobileNetV2, beside mmpretrain's, which this package has."""
from __future__ import annotations

from collections.abc import Mapping

from ..models.backbones.mobilenet_v2 import MobileNetV2


def mobilenet_modules(activations_count: bool) -> dict[str, str]:
    """Convolutions and norms of MobileNetV2: the released module's name to this package's.

    Args:
        activations_count (bool): True as DCD has it: a block is one ``Sequential`` of convolutions, norms and
            activations, and the last convolution is ``conv``. False as torchvision and ODConv have it: an activated
            convolution is a ``Sequential`` of its own, and the last one is ``features.18``.
    """
    modules, feature = {'features.0.0': 'conv1.conv', 'features.0.1': 'conv1.bn'}, 0
    for stage, (expand_ratio, _, blocks, _) in enumerate(MobileNetV2.arch_settings, 1):
        last = 1 if expand_ratio == 1 else 2
        for block in range(blocks):
            feature += 1
            for number in range(last + 1):
                if activations_count:
                    conv, norm = 3 * number, 3 * number + 1
                elif number == last:  # not activated
                    conv, norm = number, number + 1
                else:
                    conv, norm = f'{number}.0', f'{number}.1'
                modules[f'features.{feature}.conv.{conv}'] = f'layer{stage}.{block}.conv.{number}.conv'
                modules[f'features.{feature}.conv.{norm}'] = f'layer{stage}.{block}.conv.{number}.bn'
    last = 'conv' if activations_count else f'features.{feature + 1}'
    return {**modules, f'{last}.0': 'conv2.conv', f'{last}.1': 'conv2.bn'}


def rename(name: str, modules: Mapping[str, str]) -> str:
    """A parameter's name with its module renamed; as it is where none of ``modules`` holds it."""
    parts = name.split('.')
    for length in range(len(parts) - 1, 0, -1):
        module = modules.get('.'.join(parts[:length]))
        if module is not None:
            return '.'.join([module, *parts[length:]])
    return name

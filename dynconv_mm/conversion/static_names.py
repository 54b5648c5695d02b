"""The names that the weights of static ResNets and MobileNetV2s have elsewhere, as OpenMMLab's."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from ..models.backbones.mobilenet_v2 import MobileNetV2
from .checkpoint_file import CheckpointError

# first and last convolution with their norms, and the classifier
TORCHVISION_ENDS = {'features.0.0': 'backbone.conv1.conv', 'features.0.1': 'backbone.conv1.bn',
                    'features.18.0': 'backbone.conv2.conv', 'features.18.1': 'backbone.conv2.bn',
                    'classifier.1': 'head.fc'}
TIMM_ENDS = {'conv_stem': 'backbone.conv1.conv', 'bn1': 'backbone.conv1.bn', 'conv_head': 'backbone.conv2.conv',
             'bn2': 'backbone.conv2.bn', 'classifier': 'head.fc'}
# the same of a block whose expand ratio is 1, and of the others
TORCHVISION_BLOCKS = (('0.0', '0.1', '1', '2'), ('0.0', '0.1', '1.0', '1.1', '2', '3'))
TIMM_BLOCKS = (('conv_dw', 'bn1', 'conv_pw', 'bn2'), ('conv_pw', 'bn1', 'conv_dw', 'bn2', 'conv_pwl', 'bn3'))

RESNET = 'ResNet of torchvision or timm, or a backbone of OpenMMLab alone (they have the same names)'


def openmmlab_names(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """A static network's weights by OpenMMLab's names, ``backbone.…``, ``head.fc.…``, ``neck.…`` and so on.

    Args:
        state_dict (Mapping[str, Tensor]): of a ResNet or MobileNetV2 of torchvision or timm, a backbone of OpenMMLab,
            or a whole model of mmpretrain or mmdet.

    Returns:
        tuple[str, dict[str, Tensor]]: whose names these are, in words, and the weights. What such a network does not
        have keeps its name, behind ``backbone.``.

    Raises:
        CheckpointError: the names are of none of them.
    """
    for naming, (is_used, rename) in NAMINGS.items():
        if is_used(state_dict):
            return naming, {rename(name): value for name, value in state_dict.items()}
    raise CheckpointError(f'these are no weights of a static ResNet or MobileNetV2 of torchvision, timm, mmpretrain or '
                          f'mmdet, nor of a detector on one: the names start with {", ".join(list(state_dict)[:3])}')


def _mobilenet_renamer(ends: Mapping[str, str], blocks: Mapping[str, str]) -> Callable[[str], str]:
    places = {**ends, **blocks}

    def rename(name: str) -> str:
        module, _, parameter = name.rpartition('.')
        return f'{places[module]}.{parameter}' if module in places else f'backbone.{name}'

    return rename


def _block_names(prefixes: Iterable[str], parts: tuple[tuple[str, ...], tuple[str, ...]]) -> dict[str, str]:
    """Of convolutions and norms in the blocks of MobileNetV2: our names by theirs, of which ``prefixes`` are the
    blocks'."""
    ours = [(f'backbone.layer{stage}.{block}', ratio > 1)
            for stage, (ratio, _, blocks, _) in enumerate(MobileNetV2.arch_settings, 1) for block in range(blocks)]
    return {f'{prefix}.{part}': f'{block}.conv.{index // 2}.{("conv", "bn")[index % 2]}'
            for prefix, (block, expands) in zip(prefixes, ours) for index, part in enumerate(parts[expands])}


def _resnet_name(name: str) -> str:
    return f'head.{name}' if name.startswith('fc.') else f'backbone.{name}'


TORCHVISION_PREFIXES = [f'features.{number}.conv' for number in range(1, 18)]
TIMM_PREFIXES = [f'blocks.{stage}.{block}' for stage, (_, _, blocks, _) in enumerate(MobileNetV2.arch_settings)
                 for block in range(blocks)]

# whose names they are: by what they are told, and how they are renamed
NAMINGS: dict[str, tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[str], str]]] = {
    'model of OpenMMLab (mmpretrain, mmdet)': (
        lambda state_dict: any(name.startswith('backbone.') for name in state_dict), lambda name: name),
    'MobileNetV2 of torchvision': (
        lambda state_dict: 'features.0.0.weight' in state_dict,
        _mobilenet_renamer(TORCHVISION_ENDS, _block_names(TORCHVISION_PREFIXES, TORCHVISION_BLOCKS))),
    'MobileNetV2 of timm': (
        lambda state_dict: 'conv_stem.weight' in state_dict,
        _mobilenet_renamer(TIMM_ENDS, _block_names(TIMM_PREFIXES, TIMM_BLOCKS))),
    'MobileNetV2 backbone of OpenMMLab': (
        lambda state_dict: 'conv1.conv.weight' in state_dict, lambda name: f'backbone.{name}'),
    RESNET: (lambda state_dict: any(re.match(r'layer1\.0\.', name) for name in state_dict), _resnet_name),
}

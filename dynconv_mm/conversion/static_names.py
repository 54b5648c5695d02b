"""The names that the weights of static ResNets and MobileNetV2s have elsewhere, as OpenMMLab's."""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from ..models.backbones.mobilenet_v2 import MobileNetV2
from .checkpoint_file import CheckpointError
from .mobilenet_names import mobilenet_modules

# of timm's MobileNetV2: first and last convolution with their norms, and the classifier
TIMM_ENDS = {'conv_stem': 'backbone.conv1.conv', 'bn1': 'backbone.conv1.bn', 'conv_head': 'backbone.conv2.conv',
             'bn2': 'backbone.conv2.bn', 'classifier': 'head.fc'}
# the same of a block whose expand ratio is 1, and of the others
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


def _mobilenet_renamer(places: Mapping[str, str]) -> Callable[[str], str]:
    def rename(name: str) -> str:
        module, _, parameter = name.rpartition('.')
        return f'{places[module]}.{parameter}' if module in places else f'backbone.{name}'

    return rename


def _torchvision_places() -> dict[str, str]:
    """Convolutions, norms and the classifier of MobileNetV2: our names by torchvision's."""
    modules = mobilenet_modules(activations_count=False)
    return {**{theirs: f'backbone.{ours}' for theirs, ours in modules.items()}, 'classifier.1': 'head.fc'}


def _timm_places() -> dict[str, str]:
    """The same, by timm's names."""
    places = dict(TIMM_ENDS)
    for stage, (ratio, _, blocks, _) in enumerate(MobileNetV2.arch_settings):
        for block in range(blocks):
            for index, part in enumerate(TIMM_BLOCKS[ratio > 1]):
                places[f'blocks.{stage}.{block}.{part}'] = \
                    f'backbone.layer{stage + 1}.{block}.conv.{index // 2}.{("conv", "bn")[index % 2]}'
    return places


def _resnet_name(name: str) -> str:
    return f'head.{name}' if name.startswith('fc.') else f'backbone.{name}'


# whose names they are: by what they are told, and how they are renamed
NAMINGS: dict[str, tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[str], str]]] = {
    'model of OpenMMLab (mmpretrain, mmdet)': (
        lambda state_dict: any(name.startswith('backbone.') for name in state_dict), lambda name: name),
    'MobileNetV2 of torchvision': (
        lambda state_dict: 'features.0.0.weight' in state_dict,
        _mobilenet_renamer(_torchvision_places())),
    'MobileNetV2 of timm': (
        lambda state_dict: 'conv_stem.weight' in state_dict,
        _mobilenet_renamer(_timm_places())),
    'MobileNetV2 backbone of OpenMMLab': (
        lambda state_dict: 'conv1.conv.weight' in state_dict, lambda name: f'backbone.{name}'),
    RESNET: (lambda state_dict: any(re.match(r'layer1\.0\.', name) for name in state_dict), _resnet_name),
}

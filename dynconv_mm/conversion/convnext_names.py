"""The names and shapes that the release of KernelWarehouse gives the weights of ConvNeXt-T, beside mmpretrain's."""
from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

DEPTHS = (3, 3, 9, 3)  # blocks of the stages
MODULES = {'dwconv': 'depthwise_conv', 'pwconv1': 'pointwise_conv1', 'pwconv2': 'pointwise_conv2'}  # ours by theirs


def is_convnext(names: Iterable[str]) -> bool:
    """Whether names are those of a ConvNeXt's weights, in the release or in mmpretrain."""
    return any(name.startswith('downsample_layers.') for name in names)


def convnext_modules() -> dict[str, str]:
    """The released modules' names to mmpretrain's, where they differ."""
    blocks = [f'stages.{stage}.{block}' for stage, depth in enumerate(DEPTHS) for block in range(depth)]
    return {'norm': 'norm3', **{f'{block}.{theirs}': f'{block}.{ours}'
                                for block in blocks for theirs, ours in MODULES.items()}}


def shape_gammas(weights: Mapping[str, Tensor], released: bool) -> dict[str, Tensor]:
    """The weights with the factors of each block's channels as the release, [1, channels, 1, 1], or mmpretrain,
    [channels], has them."""
    shape = (1, -1, 1, 1) if released else (-1, )
    return {name: value.view(shape) if name.endswith('.gamma') else value for name, value in weights.items()}

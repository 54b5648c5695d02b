"""The names and shapes that FDConv's weights have in the official release."""
from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..functional.frequency import groups_of_order
from .checkpoint_file import CheckpointError

WEIGHT = 'dft_weight'
GROUPS = 'coefficient_groups'
MODULES = {'KSM_Global': 'attention', 'KSM_Local': 'local_attention'}  # ours by theirs
BANDS = re.compile(r'(.*)FBM\.freq_weight_conv_list\.(\d+)\.(weight|bias)')  # of one map each; ours are one module


def package_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the release, of a layer or of a network, by this package's names.

    The release does not store which coefficients form a group: it sorts them when a layer is built, by a sort that is
    free to put equal ones in any order. The same call is made here.

    Raises:
        CheckpointError: of a layer with ``dft_weight`` the weights are missing by which its channels are told.
    """
    renamed, bands = {}, {}
    for name, value in weights.items():
        band = BANDS.fullmatch(name)
        if band is not None:
            bands.setdefault(f'{band[1]}band_conv.{band[3]}', {})[int(band[2])] = value
            continue
        for theirs, ours in MODULES.items():
            name = re.sub(rf'(^|\.){theirs}\.', rf'\1{ours}.', name)
        if _is_weight(name) and value.dim() == 4:
            value = value.flatten(0, 1)
        renamed[name] = value
    renamed.update((name, torch.cat([maps[index] for index in sorted(maps)])) for name, maps in bands.items())
    for name in [name for name in renamed if _is_weight(name)]:
        prefix = name[:-len(WEIGHT)]
        renamed[f'{prefix}{GROUPS}'] = _released_groups(renamed, prefix)
    return renamed


def released_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Weights of this package by the release's names, and how many coefficients are in another group there."""
    renamed, moved = {}, 0
    for name, value in weights.items():
        prefix, _, last = name.rpartition('.')
        if last == GROUPS:
            moved += int((_released_groups(weights, f'{prefix}.' if prefix else '') != value.cpu()).sum())
        elif prefix.rpartition('.')[2] == 'band_conv':
            place = prefix[:-len('band_conv')]
            renamed.update((f'{place}FBM.freq_weight_conv_list.{index}.{last}', part)
                           for index, part in enumerate(value.split(1)))
        else:
            for theirs, ours in MODULES.items():
                name = re.sub(rf'(^|\.){ours}\.', rf'\1{theirs}.', name)
            renamed[name] = value[None] if last == WEIGHT else value
    return renamed, moved


def _is_weight(name: str) -> bool:
    return name.rpartition('.')[2] == WEIGHT


def _released_groups(weights: Mapping[str, Tensor], prefix: str) -> Tensor:
    """The groups that the release would make for a layer, by float32 distances and an unstable sort."""
    rows = weights[f'{prefix}{WEIGHT}'].shape[0]
    try:
        out_channels, in_channels, groups = (len(weights[f'{prefix}{name}']) for name in (
            'attention.filter_fc.bias', 'local_attention.norm.weight', 'attention.kernel_fc.bias'))
    except KeyError as error:
        raise CheckpointError(f'the weights have {prefix}{WEIGHT} without {error.args[0]}') from error
    columns = in_channels * (rows // out_channels)
    frequencies = torch.stack(torch.meshgrid(torch.fft.fftfreq(rows), torch.fft.rfftfreq(columns), indexing='ij'), -1)
    order = frequencies.norm(dim=-1).flatten().sort()[1]
    return groups_of_order(order, groups).view(rows, columns // 2 + 1)

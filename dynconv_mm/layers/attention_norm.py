"""The norm within an attention or a dynamic branch."""
from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..compat.openmmlab import build_norm_layer

NORM_TYPES = ('BN', 'BN1d', 'BN2d', 'SyncBN', 'GN', 'LN')


def build_attention_norm(norm_cfg: dict | None, channels: int, maps: bool = False) -> nn.Module:
    """The norm that ``norm_cfg`` describes over a hidden vector.

    Args:
        norm_cfg (dict, optional): its type and arguments.
        channels (int): length of the vector.
        maps (bool): whether there are maps of such vectors, Tensor[batch, channels, height, width]; else the norm takes
            Tensor[batch, channels]. Default: False.

    Raises:
        ValueError: ``norm_cfg`` is no dict with a type in :data:`NORM_TYPES`, or does not fit ``channels``.
    """
    if norm_cfg is None:
        return nn.Identity()
    if not isinstance(norm_cfg, dict) or norm_cfg.get('type') not in NORM_TYPES:
        raise ValueError(f'norm_cfg must be None or a dict whose type is one of {NORM_TYPES}, but is '
                         f'{norm_cfg!r}')
    if norm_cfg['type'] in ('BN', 'BN1d', 'BN2d'):  # the same norm, but for the dimensions that it takes
        norm_cfg = dict(norm_cfg, type='BN2d' if maps else 'BN1d')
    try:
        norm = build_norm_layer(norm_cfg, channels)[1]
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f'norm_cfg {norm_cfg!r} does not fit a hidden width of {channels}: '
                         f"{error or 'it needs num_groups'}") from error
    if isinstance(norm, nn.GroupNorm) and norm.num_groups == channels:
        raise ValueError(f'norm_cfg has num_groups={channels}, which normalises each of the {channels} hidden '
                         'values by itself to 0; use fewer groups')
    if isinstance(norm, _BatchNorm) and not norm.track_running_stats:
        raise ValueError('norm_cfg must leave track_running_stats=True: the hidden vector of a single sample '
                         'has no statistics of its own')
    return norm

"""Normalisation within an attention or a dynamic branch, safe for a batch of one."""
from __future__ import annotations

import functools
import warnings

from mmcv.cnn import build_norm_layer
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .norm_folding import has_hooks, is_constant

NORM_TYPES = ('BN', 'BN1d', 'BN2d', 'SyncBN', 'GN', 'LN')


def build_attention_norm(norm_cfg: dict | None, channels: int) -> nn.Module:
    """The norm that ``norm_cfg`` describes over a hidden vector of ``channels``.

    Raises:
        ValueError: ``norm_cfg`` is no dict with a type in :data:`NORM_TYPES`, or does not fit ``channels``.
    """
    if norm_cfg is None:
        return nn.Identity()
    if not isinstance(norm_cfg, dict) or norm_cfg.get('type') not in NORM_TYPES:
        raise ValueError(f'norm_cfg must be None or a dict whose type is one of {NORM_TYPES}, but is '
                         f'{norm_cfg!r}')
    try:
        norm = build_norm_layer(norm_cfg, channels)[1]
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f'norm_cfg {norm_cfg!r} does not fit a hidden width of {channels}: {error}') from error
    if isinstance(norm, nn.GroupNorm) and norm.num_groups == channels:
        raise ValueError(f'norm_cfg has num_groups={channels}, which normalises each of the {channels} hidden '
                         'values by itself to 0; use fewer groups')
    if isinstance(norm, _BatchNorm) and not norm.track_running_stats:
        raise ValueError('norm_cfg must leave track_running_stats=True: the hidden vector of a single sample '
                         'has no statistics of its own')
    return norm


def normalize_hidden(norm: nn.Module, hidden: Tensor) -> Tensor:
    """Apply a norm of :func:`build_attention_norm`.

    A batch norm in training needs two values a channel. Where it gets fewer (the last, odd batch of an
    epoch), it uses its running statistics instead and leaves them as they are.

    Args:
        norm (nn.Module): the norm, or what ``convert_sync_batchnorm`` made of it.
        hidden (Tensor[batch, channels] | Tensor[batch, channels, height, width]): what to normalise.

    Returns:
        Tensor: of the same shape.
    """
    if not isinstance(norm, _BatchNorm):
        return norm(hidden)
    if is_constant(norm) and not has_hooks(norm):  # without the module's detour over four dimensions
        return F.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    values = hidden.numel() // hidden.shape[1]
    if norm.training and values < 2 and not _is_synchronised(norm):
        if values == 1:
            _warn_of_single_sample()
        return F.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    if isinstance(norm, nn.BatchNorm1d) or hidden.dim() == 4:
        return norm(hidden)
    return norm(hidden[:, :, None, None]).flatten(1)


def _is_synchronised(norm: _BatchNorm) -> bool:
    return (isinstance(norm, nn.SyncBatchNorm) and distributed.is_available() and distributed.is_initialized()
            and distributed.get_world_size(norm.process_group) > 1)


@functools.cache
def _warn_of_single_sample() -> None:
    """Warns once a process."""
    warnings.warn('An attention got a single sample in training, over which batch norm cannot take '
                  'statistics: it uses its running statistics in such steps. If that is not just the odd last '
                  "batch of an epoch, raise the batch size or use norm_cfg=dict(type='LN').", stacklevel=2)

"""A linear classifier behind dropout, as ODConv's and DyConv's recipes have it (ODConv A.2)."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from mmengine.registry import MODELS
from torch import Tensor, nn

from ...compat.optional import import_optional
from ...layers.conv_arguments import check_positive_int

if TYPE_CHECKING:
    from mmpretrain.models.heads import LinearClsHead


@MODELS.register_module()
def DropoutLinearClsHead(dropout: float, **kwargs) -> LinearClsHead:
    """mmpretrain's ``LinearClsHead`` behind dropout.

    Args:
        dropout (float): probability with which a feature is zeroed in training, in [0, 1).
        **kwargs: of ``LinearClsHead``: ``num_classes``, ``in_channels``, ``loss``, ``topk`` …

    Returns:
        LinearClsHead: same parameter names (``fc.weight``, ``fc.bias``).

    Raises:
        ImportError: mmpretrain is not installed.
        ValueError: ``dropout`` is not in [0, 1), or a size no positive int.
    """
    check_dropout(dropout)
    check_sizes(kwargs)
    return dropout_head_class('DropoutLinearClsHead')(dropout, **kwargs)


def check_dropout(dropout: float) -> None:
    """Raise a ValueError that names the argument unless it is in [0, 1)."""
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f'dropout must be in [0, 1), but is {dropout!r}')


def check_sizes(kwargs: dict) -> None:
    """Raise a ValueError that names the argument unless the sizes of a linear head are positive ints."""
    for name in ('num_classes', 'in_channels'):
        if name in kwargs:
            check_positive_int(name, kwargs[name])


def dropout_head_class(user: str) -> type[LinearClsHead]:
    """The class that :func:`DropoutLinearClsHead` makes heads of; other linear heads stand on it.

    Args:
        user (str): what needs it, for the message where mmpretrain is not installed.
    """
    return _head_class(import_optional('mmpretrain.models.heads', user).LinearClsHead)


@functools.cache
def _head_class(base: type[LinearClsHead]) -> type[LinearClsHead]:

    class DropoutLinearClsHead(base):
        __qualname__ = '_DropoutLinearClsHead'  # where pickle looks for the class, see __getattr__

        def __init__(self, dropout: float, **kwargs) -> None:
            super().__init__(**kwargs)
            self.dropout = nn.Dropout(dropout)

        def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
            return self.dropout(super().pre_logits(feats))

    return DropoutLinearClsHead


def __getattr__(name: str) -> type[LinearClsHead]:
    """The class by its name, so that models with such a head can be pickled."""
    if name != '_DropoutLinearClsHead':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return dropout_head_class('DropoutLinearClsHead')

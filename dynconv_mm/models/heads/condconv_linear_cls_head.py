"""The classifier of CondConv's networks: n weight matrices, added up by routing weights (CondConv, §4)."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from mmengine.registry import MODELS

from ...layers.condconv import CondConvLinear
from ...layers.conv_arguments import check_positive_int
from .dropout_linear_cls_head import check_dropout, check_sizes, dropout_head_class

if TYPE_CHECKING:
    from mmpretrain.models.heads import LinearClsHead


@MODELS.register_module()
def CondConvLinearClsHead(kernel_num: int = 8, dropout: float = 0., **kwargs) -> LinearClsHead:
    """mmpretrain's ``LinearClsHead``, whose fully connected layer is a :class:`CondConvLinear`.

    Args:
        kernel_num (int): n, the number of weight matrices. Default: 8.
        dropout (float): probability with which a feature is zeroed in training, in [0, 1). Default: 0.
        **kwargs: of ``LinearClsHead``: ``num_classes``, ``in_channels``, ``loss``, ``topk`` …

    Returns:
        LinearClsHead: with the parameters ``fc.weight`` [n, num_classes, in_channels], ``fc.bias`` and
        ``fc.routing``.

    Raises:
        ImportError: mmpretrain is not installed.
        ValueError: ``kernel_num`` or a size is no positive int, or ``dropout`` not in [0, 1).
    """
    check_positive_int('kernel_num', kernel_num)
    check_dropout(dropout)
    check_sizes(kwargs)
    return _head_class(dropout_head_class('CondConvLinearClsHead'))(kernel_num, dropout, **kwargs)


@functools.cache
def _head_class(base: type[LinearClsHead]) -> type[LinearClsHead]:

    class CondConvLinearClsHead(base):
        __qualname__ = '_CondConvLinearClsHead'  # where pickle looks for the class, see __getattr__

        def __init__(self, kernel_num: int, dropout: float, **kwargs) -> None:
            super().__init__(dropout, **kwargs)
            self.fc = CondConvLinear(self.in_channels, self.num_classes, kernel_num)

    return CondConvLinearClsHead


def __getattr__(name: str) -> type[LinearClsHead]:
    """The class by its name, so that models with such a head can be pickled."""
    if name != '_CondConvLinearClsHead':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return _head_class(dropout_head_class('CondConvLinearClsHead'))

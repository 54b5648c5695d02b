"""A linear classifier behind dropout, as ODConv's and DyConv's recipes have it (ODConv A.2)."""
from __future__ import annotations

import torch
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from ...functional.geometry import check_vectors
from ...layers.conv_arguments import check_positive_int

torch.fx.wrap('check_vectors')


class DropoutLinearClsHead(LinearClsHead):
    """mmpretrain's ``LinearClsHead`` behind dropout, with the same parameter names (``fc.weight``, ``fc.bias``).

    Args:
        dropout (float): probability with which a feature is zeroed in training, in [0, 1).
        **kwargs: of ``LinearClsHead``: ``num_classes``, ``in_channels``, ``loss``, ``topk`` …

    Raises:
        ValueError: ``dropout`` is not in [0, 1), or a size no positive int.
    """

    def __init__(self, dropout: float, **kwargs) -> None:
        check_dropout(dropout)
        for name in ('num_classes', 'in_channels'):
            if name in kwargs:
                check_positive_int(name, kwargs[name])
        super().__init__(**kwargs)
        self.dropout = nn.Dropout(dropout)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The features that the classifier gets, Tensor[batch, in_channels]."""
        features = super().pre_logits(feats)
        check_vectors(features, self.in_channels, 'in_channels')
        return self.dropout(features)


def check_dropout(dropout: float) -> None:
    """Raise a ValueError that names the argument unless it is in [0, 1)."""
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f'dropout must be in [0, 1), but is {dropout!r}')

"""DCD's classifier, a pointwise convolution of a 1×1 map (DCD, 5.2 and Table 3b)."""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from mmengine.registry import MODELS
from torch import Tensor, nn

from ...compat.optional import import_optional
from ...layers.dcd_base import DynamicFusion, StaticMatrix

if TYPE_CHECKING:
    from mmpretrain.models.heads import ClsHead


@MODELS.register_module()
def DCDLinearClsHead(num_classes: int, in_channels: int, dropout: float = 0., **kwargs) -> ClsHead:
    """A dynamic linear classifier, Λ(x) (W₀x + b) + P (BN(Φ(x) u) + u) with u = BN(Qᵀx), as released.

    Args:
        num_classes (int): number of classes.
        in_channels (int): features of a sample.
        dropout (float): probability with which a feature is zeroed in training, in [0, 1). Default: 0.
        **kwargs: of mmpretrain's ``ClsHead``: ``loss``, ``topk``, ``cal_acc``, ``init_cfg``.

    Returns:
        ClsHead: parameter names are those of the released classifier (``cls.weight``, ``fc_phi.weight``, …).

    Raises:
        ImportError: mmpretrain is not installed.
        ValueError: an argument is not one of the above.
    """
    for name, value in (('num_classes', num_classes), ('in_channels', in_channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f'{name} must be a positive int, but is {value!r}')
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f'dropout must be in [0, 1), but is {dropout!r}')
    heads = import_optional('mmpretrain.models.heads', 'DCDLinearClsHead')
    return _head_class(heads.ClsHead)(num_classes, in_channels, dropout, **kwargs)


@functools.cache
def _head_class(base: type[ClsHead]) -> type[ClsHead]:

    class DCDLinearClsHead(base, DynamicFusion):
        __qualname__ = '_DCDLinearClsHead'  # where pickle looks for the class, see __getattr__

        hidden_channels = 32
        latent_channels = 32

        def __init__(self, num_classes: int, in_channels: int, dropout: float, **kwargs) -> None:
            super().__init__(**kwargs)
            self.num_classes = num_classes
            self.in_channels = in_channels
            self.dropout = nn.Dropout(dropout)
            self.cls = nn.Linear(in_channels, num_classes)
            self.cls_q = StaticMatrix(self.latent_channels, in_channels)
            self.cls_p = StaticMatrix(num_classes, self.latent_channels)
            self._init_fusion(in_channels, self.hidden_channels, num_classes, self.latent_channels,
                              norm_cfg=dict(type='BN'))

        def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
            """The features that the classifier gets, Tensor[batch, in_channels]."""
            return self.dropout(super().pre_logits(feats))

        def static_matrix(self) -> nn.Linear:
            return self.cls

        def expansion(self) -> StaticMatrix:
            return self.cls_p

        def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
            """Logits, Tensor[batch, num_classes]."""
            x = self.pre_logits(feats)
            scale, phi = self._coefficients(x)
            fused = self._fuse(self.cls_q(x)[:, :, None, None], phi)
            return scale * self.cls(x) + self.cls_p(fused.flatten(1))

    return DCDLinearClsHead


def __getattr__(name: str) -> type[ClsHead]:
    """The class by its name, so that models with such a head can be pickled."""
    if name != '_DCDLinearClsHead':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return _head_class(import_optional('mmpretrain.models.heads', 'DCDLinearClsHead').ClsHead)

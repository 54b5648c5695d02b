"""DCD's classifier, a pointwise convolution of a 1×1 map (DCD, 5.2 and Table 3b)."""
from __future__ import annotations

import torch
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn
from torch.nn import functional as F

from ...functional.geometry import check_vectors
from ...layers.conv_arguments import check_positive_int
from ...layers.dcd import paper_rule
from ...layers.dcd_base import DCDBase, StaticMatrix
from .dropout_linear_cls_head import check_dropout

torch.fx.wrap('check_vectors')


class DCDLinearClsHead(ClsHead, DCDBase):
    """A dynamic linear classifier, Λ(x) (W₀x + b) + P (BN(Φ(x) u) + u) with u = BN(Qᵀx), as released.

    ``variant='paper'`` is Eq. 6 as it stands, (Λ(x) W₀ + P Φ(x) Qᵀ) x + b, with the sizes of 3.2 and 3.4: L of the
    ``in_channels``, which Q compresses, and a branch of ``in_channels`` / r that ends in ReLU.

    Parameter names are those of the released classifier (``cls.weight``, ``fc_phi.weight``, …).

    Args:
        num_classes (int): number of classes.
        in_channels (int): features of a sample.
        dropout (float): probability with which a feature is zeroed in training, in [0, 1). Default: 0.
        variant (str): 'released' or 'paper' (Table 3b). Default: 'released'.
        squeeze_ratio (int): r, of the paper's build; the released branch is 32 wide. Default: 16.
        **kwargs: of mmpretrain's ``ClsHead``: ``loss``, ``topk``, ``cal_acc``, ``init_cfg``.

    Raises:
        ValueError: an argument is not one of the above.
    """

    def __init__(self, num_classes: int, in_channels: int, dropout: float = 0., variant: str = 'released',
                 squeeze_ratio: int = 16, **kwargs) -> None:
        for name, value in (('num_classes', num_classes), ('in_channels', in_channels),
                            ('squeeze_ratio', squeeze_ratio)):
            check_positive_int(name, value)
        if variant not in ('released', 'paper'):
            raise ValueError(f"variant must be 'released' or 'paper', but is {variant!r}")
        check_dropout(dropout)
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.released = variant == 'released'
        latent_channels = 32 if self.released else paper_rule(in_channels, num_classes).latent_channels
        hidden_channels = 32 if self.released else max(in_channels // squeeze_ratio, 1)
        self.dropout = nn.Dropout(dropout)
        self.cls = nn.Linear(in_channels, num_classes)
        self.cls_q = StaticMatrix(latent_channels, in_channels)
        self.cls_p = StaticMatrix(num_classes, latent_channels)
        self._init_fusion(in_channels, hidden_channels, num_classes, latent_channels,
                          norm_cfg=dict(type='BN') if self.released else None, gate=self.released)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The features that the classifier gets, Tensor[batch, in_channels]."""
        features = super().pre_logits(feats)
        check_vectors(features, self.in_channels, 'in_channels')
        return self.dropout(features)

    def static_matrix(self) -> nn.Linear:
        """W₀."""
        return self.cls

    def expansion(self) -> StaticMatrix:
        """P."""
        return self.cls_p

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits, Tensor[batch, num_classes]."""
        x = self.pre_logits(feats)
        scale, phi = self._coefficients(x)
        residual = self.cls_p(self._fuse(self.cls_q(x)[:, :, None, None], phi).flatten(1))
        if self.released:
            return scale * self.cls(x) + residual
        return scale * F.linear(x, self.cls.weight) + residual + self.cls.bias

"""DCD's classifier, a pointwise convolution of a 1×1 map (DCD, 5.2 and Table 3b)."""
from __future__ import annotations

from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from ...layers.conv_arguments import check_positive_int
from ...layers.dcd_base import DCDBase, StaticMatrix
from .dropout_linear_cls_head import check_dropout


class DCDLinearClsHead(ClsHead, DCDBase):
    """A dynamic linear classifier, Λ(x) (W₀x + b) + P (BN(Φ(x) u) + u) with u = BN(Qᵀx), as released.

    Parameter names are those of the released classifier (``cls.weight``, ``fc_phi.weight``, …).

    Args:
        num_classes (int): number of classes.
        in_channels (int): features of a sample.
        dropout (float): probability with which a feature is zeroed in training, in [0, 1). Default: 0.
        **kwargs: of mmpretrain's ``ClsHead``: ``loss``, ``topk``, ``cal_acc``, ``init_cfg``.

    Raises:
        ValueError: an argument is not one of the above.
    """

    hidden_channels = 32
    latent_channels = 32

    def __init__(self, num_classes: int, in_channels: int, dropout: float = 0., **kwargs) -> None:
        check_positive_int('num_classes', num_classes)
        check_positive_int('in_channels', in_channels)
        check_dropout(dropout)
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
        """W₀."""
        return self.cls

    def expansion(self) -> StaticMatrix:
        """P."""
        return self.cls_p

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits, Tensor[batch, num_classes]."""
        x = self.pre_logits(feats)
        scale, phi = self._coefficients(x)
        fused = self._fuse(self.cls_q(x)[:, :, None, None], phi)
        return scale * self.cls(x) + self.cls_p(fused.flatten(1))

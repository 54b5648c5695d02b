"""The classifier of KernelWarehouse's smallest MobileNetV2, whose matrix is put together of cells."""
from __future__ import annotations

from ...layers.kw import KWLinear
from .dropout_linear_cls_head import DropoutLinearClsHead


class KWLinearClsHead(DropoutLinearClsHead):
    """mmpretrain's ``LinearClsHead``, whose fully connected layer is a :class:`KWLinear` with cells to itself.

    Args:
        cell_num_ratio, cell_in_ratio, cell_out_ratio, nonlocal_basis_ratio, reduction, min_channels, temperature,
            attention_norm_cfg: as of :class:`KWLinear`, the last one its ``norm_cfg``.
        dropout (float): probability with which a feature is zeroed in training, in [0, 1). Default: 0.
        **kwargs: of ``LinearClsHead``: ``num_classes``, ``in_channels``, ``loss``, ``topk`` …

    Raises:
        ValueError: as of :class:`KWLinear`, or ``dropout`` is not in [0, 1).
    """

    def __init__(self, cell_num_ratio: float = 1., cell_in_ratio: float = 1., cell_out_ratio: float = 1.,
                 nonlocal_basis_ratio: float = 1., reduction: float = 1 / 16, min_channels: int = 16,
                 temperature: float = 0., attention_norm_cfg: dict | None = dict(type='BN'), dropout: float = 0.,
                 **kwargs) -> None:
        super().__init__(dropout, **kwargs)
        self.fc = KWLinear(self.in_channels, self.num_classes, cell_num_ratio=cell_num_ratio,
                           cell_in_ratio=cell_in_ratio, cell_out_ratio=cell_out_ratio,
                           nonlocal_basis_ratio=nonlocal_basis_ratio, reduction=reduction, min_channels=min_channels,
                           temperature=temperature, norm_cfg=attention_norm_cfg)

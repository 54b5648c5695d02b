"""The classifier of CondConv's networks: n weight matrices, added up by routing weights (CondConv, §4)."""
from __future__ import annotations

from ...layers.condconv import CondConvLinear
from ...layers.conv_arguments import check_positive_int
from .dropout_linear_cls_head import DropoutLinearClsHead


class CondConvLinearClsHead(DropoutLinearClsHead):
    """mmpretrain's ``LinearClsHead``, whose fully connected layer is a :class:`CondConvLinear`.

    Its parameters are ``fc.weight`` [n, num_classes, in_channels], ``fc.bias`` and ``fc.routing``.

    Args:
        kernel_num (int): n, the number of weight matrices. Default: 8.
        attention (bool): whether they are weighted; without, each routing weight is 1 (ODConv, 3.1). Default: True.
        dropout (float): probability with which a feature is zeroed in training, in [0, 1). Default: 0.
        **kwargs: of ``LinearClsHead``: ``num_classes``, ``in_channels``, ``loss``, ``topk`` …

    Raises:
        ValueError: ``kernel_num`` or a size is no positive int, ``attention`` no bool, or ``dropout`` not in [0, 1).
    """

    def __init__(self, kernel_num: int = 8, dropout: float = 0., attention: bool = True, **kwargs) -> None:
        check_positive_int('kernel_num', kernel_num)
        super().__init__(dropout, **kwargs)
        self.fc = CondConvLinear(self.in_channels, self.num_classes, kernel_num, attention)

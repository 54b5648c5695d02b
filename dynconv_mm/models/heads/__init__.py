"""Heads on mmpretrain, which is imported when one is built or its class is asked for."""
from typing import TYPE_CHECKING

from ...compat.optional import import_when_needed

if TYPE_CHECKING:
    from .condconv_linear_cls_head import CondConvLinearClsHead
    from .dcd_linear_cls_head import DCDLinearClsHead
    from .dropout_linear_cls_head import DropoutLinearClsHead
    from .kw_linear_cls_head import KWLinearClsHead

__all__ = ['CondConvLinearClsHead', 'DCDLinearClsHead', 'DropoutLinearClsHead', 'KWLinearClsHead']
__getattr__ = import_when_needed(__name__, 'mmpretrain.models.heads', {
    'CondConvLinearClsHead': 'condconv_linear_cls_head',
    'DCDLinearClsHead': 'dcd_linear_cls_head',
    'DropoutLinearClsHead': 'dropout_linear_cls_head',
    'KWLinearClsHead': 'kw_linear_cls_head',
})

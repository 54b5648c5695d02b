"""Heads on mmpretrain, which is imported when one is built."""
from .condconv_linear_cls_head import CondConvLinearClsHead
from .dcd_linear_cls_head import DCDLinearClsHead
from .dropout_linear_cls_head import DropoutLinearClsHead

__all__ = ['CondConvLinearClsHead', 'DCDLinearClsHead', 'DropoutLinearClsHead']

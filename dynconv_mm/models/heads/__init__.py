"""Heads on mmpretrain, which is imported when one is built."""
from .dropout_linear_cls_head import DropoutLinearClsHead

__all__ = ['DropoutLinearClsHead']

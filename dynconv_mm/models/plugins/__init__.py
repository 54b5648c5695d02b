"""Modules that a backbone's ``plugins`` argument places into its blocks."""
from .feature_attention import CBAM, ECALayer, SELayer

__all__ = ['CBAM', 'ECALayer', 'SELayer']

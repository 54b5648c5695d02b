"""Necks on mmdet, which is imported when one is built."""
from .dynamic_fpn import DynamicFPN

__all__ = ['DynamicFPN']

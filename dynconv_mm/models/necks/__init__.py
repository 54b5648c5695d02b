"""Necks on mmdet, which is imported when one is built or its class is asked for."""
from typing import TYPE_CHECKING

from ...compat.optional import import_when_needed

if TYPE_CHECKING:
    from .dynamic_fpn import DynamicFPN

__all__ = ['DynamicFPN']
__getattr__ = import_when_needed(__name__, 'mmdet.models.necks', {'DynamicFPN': 'dynamic_fpn'})

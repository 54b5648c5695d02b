"""Registries of the scope ``dynconv_mm``, in which configs inherited by ``_base_ = 'dynconv_mm::…'`` are built.

They hold nothing: everything is registered in mmengine's root registries, to which they lead, so that mmdet,
mmpretrain, mmseg … all find it.
"""
import mmengine.registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

from dynconv_mm_scope import ENTRY

MODULE2PACKAGE.setdefault(*ENTRY)

REGISTRIES = [Registry(root.name, parent=root, scope='dynconv_mm', locations=['dynconv_mm'])
              for root in vars(mmengine.registry).values() if isinstance(root, Registry)]

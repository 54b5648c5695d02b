"""Makes ``_base_ = 'dynconv_mm::…'`` resolve in any process, before ``dynconv_mm`` itself is imported.

mmengine looks the part before ``::`` up in a dict of its own projects, and reads ``_base_`` before it runs
``custom_imports``. ``dynconv_mm_scope.pth`` imports this module when Python starts. It needs the standard
library alone, imports nothing, and adds one entry to that dict when, and if, mmengine is imported.
"""
import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec

# A module of the package, not the package: mmengine would look for a distribution of that name, and finds
# the wrong folder where it is installed as editable.
ENTRY = ('dynconv_mm', 'dynconv_mm.registry')


class _AddEntry(MetaPathFinder):

    def find_spec(self, name, path, target=None):
        if name != 'mmengine.config.utils':
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                module.MODULE2PACKAGE.setdefault(*ENTRY)

            spec.loader.exec_module = exec_module
        return spec


if 'mmengine.config.utils' not in sys.modules:
    sys.meta_path.insert(0, _AddEntry())

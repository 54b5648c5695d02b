"""Makes ``_base_ = 'dynconv_mm::…'`` resolve in any process, before ``dynconv_mm`` itself is imported.

mmengine looks the part before ``::`` up in a dict of its own projects, and reads ``_base_`` before it runs
``custom_imports``. ``dynconv_mm_scope.pth`` imports this module when Python starts, of every process: so it imports
``sys`` alone, and adds one entry to that dict when, and if, mmengine is imported.
"""
import sys

# A module of the package, not the package: mmengine would look for a distribution of that name, and finds
# the wrong folder where it is installed as editable.
ENTRY = ('dynconv_mm', 'dynconv_mm.registry')


class _AddEntry:
    """Stands first of the finders; finds nothing itself."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """The spec that the other finders have of one module of mmengine, which adds the entry when it has run."""
        if name != 'mmengine.config.utils':
            return None
        sys.meta_path.remove(_AddEntry)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                module.MODULE2PACKAGE.setdefault(*ENTRY)

            spec.loader.exec_module = exec_module
        return spec


if 'mmengine.config.utils' not in sys.modules:
    sys.meta_path.insert(0, _AddEntry)

"""Import of packages that only some parts need, with an error that says which to install."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType

from .openmmlab import MODELS


def import_optional(module: str, user: str) -> ModuleType:
    """Import ``module``, which ``user`` is built on.

    Args:
        module (str): dotted name of a module of mmdet, mmpretrain, …
        user (str): what needs it, for the message.

    Raises:
        ImportError: the package is not installed or cannot be imported; the message says what to do.
    """
    package = module.partition('.')[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise ImportError(f'{user} is built on {package}, which is not installed: '
                              f'`pip install "dynconv-mm[{package}]"`, or `pip install onedl-{package}` '
                              'beside the onedl forks') from error
        if error.name == 'mmcv._ext':
            raise ImportError(MISSING_OPS.format(user=f'{user} is built on {package}, which')) from error
        raise ImportError(f'{user} is built on {package}, which cannot be imported because the module '
                          f'{error.name!r} is missing: install it') from error


def import_when_needed(package: str, base: str, modules: Mapping[str, str]) -> Callable[[str], type]:
    """A package's ``__getattr__`` for classes whose base is in an optional package: their modules, which import the
    base, are imported when a class is asked for, or built from :data:`MODELS`, where its name is registered here.

    Args:
        package (str): dotted name of the package that the classes belong to.
        base (str): dotted name of the module that their modules import.
        modules (Mapping[str, str]): names of the classes, and of the modules in ``package`` that define them.
    """

    def get_class(name: str) -> type:
        if name not in modules:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        import_optional(base, name)
        return getattr(import_module(f'{package}.{modules[name]}'), name)

    def register(name: str) -> None:

        def build(*args, **kwargs) -> object:
            return get_class(name)(*args, **kwargs)

        build.__name__ = build.__qualname__ = name
        build.__module__ = package
        MODELS.register_module(name, module=build)

    for name in modules:
        register(name)
    return get_class


MISSING_OPS = ('{user} needs the compiled operators of mmcv (mmcv._ext), and the installed mmcv has none: it is '
               'mmcv-lite, or was built without them. Remove it and build it with them: `pip uninstall -y mmcv '
               'mmcv-lite`, then `pip install "setuptools<81" ninja psutil` and `MMCV_WITH_OPS=1 pip install '
               '--no-build-isolation --no-cache-dir mmcv==2.1.0` (minutes; needs a C++ compiler). Do it again '
               'after each change of the torch version.')

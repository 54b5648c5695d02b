"""Import of packages that only some parts need, with an error that says which to install."""
from __future__ import annotations

from importlib import import_module
from types import ModuleType


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


MISSING_OPS = ('{user} needs the compiled operators of mmcv (mmcv._ext), and the installed mmcv has none: it is '
               'mmcv-lite, or was built without them. Remove it and build it with them: `pip uninstall -y mmcv '
               'mmcv-lite`, then `pip install "setuptools<81" ninja psutil` and `MMCV_WITH_OPS=1 pip install '
               '--no-build-isolation --no-cache-dir mmcv==2.1.0` (minutes; needs a C++ compiler). Do it again '
               'after each change of the torch version.')

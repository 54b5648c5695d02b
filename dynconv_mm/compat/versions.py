"""The versions that the package is tested with, checked on import."""
from __future__ import annotations

import sys
from importlib.util import find_spec

import mmcv
import mmengine
import torch
from mmengine.utils import digit_version

from .optional import MISSING_OPS

# the first version known to work, and the first that is not known to
SUPPORTED = dict(torch=('2.1', None), mmengine=('0.8.3', '1.0'), mmcv=('2.0.0', '3.0'))


class IncompatibleEnvironmentError(RuntimeError):
    """The installed packages do not fit together.

    No ImportError: mmengine replaces the message of one that is raised in ``custom_imports``.
    """


def check_versions() -> None:
    """Check what is installed.

    Raises:
        IncompatibleEnvironmentError: torch, mmengine or mmcv has an unsupported version, or mmdet is in use
            beside an mmcv without its compiled operators.
    """
    for package in (torch, mmengine, mmcv):
        name = package.__name__
        first, beyond = SUPPORTED[name]
        version = digit_version(package.__version__.partition('+')[0])
        if version < digit_version(first) or (beyond and version >= digit_version(beyond)):
            wanted = f'{name}>={first}' + (f',<{beyond}' if beyond else '')
            raise IncompatibleEnvironmentError(
                f'dynconv_mm needs {wanted}, but {name} {package.__version__} is installed: '
                f'`pip install "{wanted}"`'
                + (' (mmcv 1 belongs to mmdet 2 and mmcls; docs/installation.md has tested sets)' if name == 'mmcv'
                   else ''))
    if 'mmdet' in sys.modules and find_spec('mmcv._ext') is None:
        raise IncompatibleEnvironmentError(MISSING_OPS.format(user='mmdet'))

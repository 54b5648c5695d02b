"""Switches of kernels that need a package which may not be installed."""
from __future__ import annotations

import os


class Switch:
    """Kernels are used from now on, or within a ``with`` block; a subclass is one switch.

    Args:
        enabled (bool): False switches them off. Default: True.

    Raises:
        ImportError: what they need is not installed, or too old.
    """

    variable = ''  # of the environment, which does the same from the start
    enabled = False

    def __init__(self, enabled: bool = True) -> None:
        if enabled:
            self.check()
        self._before, type(self).enabled = self.enabled, enabled

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        type(self).enabled = self._before

    @classmethod
    def check(cls) -> None:
        """Raise an ImportError that names the remedy unless the kernels can be used."""
        raise NotImplementedError

    @classmethod
    def set_from_environment(cls, default: bool) -> None:
        """Set the switch as the environment says.

        Args:
            default (bool): what it is where the environment says nothing, unchecked.

        Raises:
            ValueError: the variable is neither 0 nor 1.
        """
        value = os.environ.get(cls.variable, '')
        if value not in ('', '0', '1'):
            raise ValueError(f'the environment variable {cls.variable} must be 0 or 1, but is {value!r}')
        if value:
            cls(value == '1')
        else:
            cls.enabled = default

"""Switches of kernels that need a package which may not be installed."""
from __future__ import annotations

import os
from contextvars import ContextVar

in_all_threads: frozenset[str] = frozenset()
"""Names of the kernels that are switched on in all threads."""
in_this_thread: ContextVar[frozenset[str] | None] = ContextVar('in_this_thread', default=None)
"""The same within the ``with`` blocks of this thread; None outside of them."""
_outer: ContextVar[tuple[frozenset[str] | None, ...]] = ContextVar('outer', default=())
"""What it was before each of these blocks."""


def is_enabled(name: str) -> bool:
    """Whether the kernels of that name are to be used in this thread."""
    enabled = in_this_thread.get()
    return name in (in_all_threads if enabled is None else enabled)


class Switch:
    """Kernels are used from now on in all threads, or within a ``with`` block in its thread; a subclass is one switch.

    Args:
        enabled (bool): False switches them off. Default: True.

    Raises:
        ImportError: what they need is not installed, or too old.
    """

    name = ''  # of the kernels
    variable = ''  # of the environment, which does the same from the start
    otherwise: frozenset[str] = frozenset()  # names that are on as long as nothing was asked for
    _lasting: list[Switch]  # what was asked for from now on, the latest last

    def __init__(self, enabled: bool = True) -> None:
        if enabled:
            self.check()
        self.enabled = enabled
        self._lasting.append(self)
        del self._lasting[:-8]  # the latest matter; as many as blocks may wait to be entered
        self._set_default()

    def __enter__(self) -> None:
        if self in self._lasting:  # for this block alone
            self._lasting.remove(self)
            self._set_default()
        outer = in_this_thread.get()
        enabled = in_all_threads if outer is None else outer
        _outer.set((*_outer.get(), outer))
        enabled = enabled - self.otherwise
        in_this_thread.set(enabled | {self.name} if self.enabled else enabled - {self.name})

    def __exit__(self, *error: object) -> None:
        *outer, enabled = _outer.get()
        _outer.set(tuple(outer))
        in_this_thread.set(enabled)

    @classmethod
    def check(cls) -> None:
        """Raise an ImportError that names the remedy unless the kernels can be used."""
        raise NotImplementedError

    @classmethod
    def set_from_environment(cls, enabled: bool) -> None:
        """Set the switch as the environment says.

        Args:
            enabled (bool): what it is where the environment says nothing, unchecked.

        Raises:
            ValueError: the variable is neither 0 nor 1.
        """
        value = os.environ.get(cls.variable, '')
        if value not in ('', '0', '1'):
            raise ValueError(f'the environment variable {cls.variable} must be 0 or 1, but is {value!r}')
        if value == '1':
            cls.check()
        cls._initial = value == '1' if value else enabled
        cls._asked = bool(value)
        cls._lasting = []
        cls._set_default()

    @classmethod
    def _set_default(cls) -> None:
        global in_all_threads
        enabled = cls._lasting[-1].enabled if cls._lasting else cls._initial
        in_all_threads = in_all_threads | {cls.name} if enabled else in_all_threads - {cls.name}
        asked = cls._lasting or cls._asked
        in_all_threads = in_all_threads - cls.otherwise if asked else in_all_threads | cls.otherwise

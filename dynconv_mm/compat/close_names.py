"""Names close to one that is not known, for messages."""
from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: up to three close ones, or nothing where none is.

    Args:
        name: what was given; it may be no name at all.
        known (Iterable[str]): what there is, in upper or lower case.

    Example:
        >>> did_you_mean('odconv', ['ODConv2d', 'DyConv2d', 'Linear'])
        "; did you mean 'ODConv2d' or 'DyConv2d'?"
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, cutoff=0.5)
    return f'; did you mean {" or ".join(repr(by_lower[other]) for other in close)}?' if close else ''

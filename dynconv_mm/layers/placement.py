"""Which convolutions of a network are dynamic, by name (ODConv, Table 9)."""
from __future__ import annotations

import re
from typing import NamedTuple


class Placement(NamedTuple):
    """What of a network is dynamic; None sets no bound."""

    kernel_size: tuple[int, int] | None = None  # of the convolutions
    last_blocks: int | None = None  # residual blocks, counted from the end


def parse_placement(placement: str) -> Placement:
    """The meaning of a placement's name.

    Args:
        placement (str): 'all'; '1x1', '3x3' or another size: the convolutions of that kernel size; 'last_6_blocks' or
            another number: those of the last residual blocks. Table 9 of ODConv compares 'all', '1x1', '3x3' and
            'last_6_blocks'.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(placement, str):
        if placement == 'all':
            return Placement()
        size = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', placement)
        if size:
            return Placement(kernel_size=(int(size[1]), int(size[2])))
        blocks = re.fullmatch(r'last_([1-9]\d*)_blocks', placement)
        if blocks:
            return Placement(last_blocks=int(blocks[1]))
    raise ValueError("placement must be 'all', a kernel size such as '1x1' or '3x3', or 'last_N_blocks' such as "
                     f"'last_6_blocks', but is {placement!r}")

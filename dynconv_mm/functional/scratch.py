"""Memory for intermediate results that is kept from call to call.

On a CPU, fresh memory costs more than filling it: the system maps and clears it page by page at the first touch. Only
backends ask for it, which run in plain eager mode; no result lies in it.
"""
from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

# Elements beyond which a result gets memory of its own: what is kept is bounded, a few such buffers a thread.
KEPT_ELEMENTS = 2**23
# Shapes whose views of a buffer are kept too: to make one anew takes as long as another operator.
KEPT_VIEWS = 1024

_local = threading.local()


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor of the dtype and device of ``like``, overwritten by the next call of the same name.

    Args:
        name (str): what it is for; results that live at the same time have different names.
        shape (tuple[int, ...]): its shape.
        like (Tensor): gives dtype and device.
    """
    kept = _local.__dict__
    view = kept.setdefault('views', {}).get((name, shape, like.dtype))
    if view is not None and like.is_cpu:
        return view
    size = math.prod(shape)
    if not like.is_cpu or size > KEPT_ELEMENTS:
        return like.new_empty(shape)
    buffers = kept.setdefault('buffers', {})
    key = name, like.dtype
    buffer = buffers.get(key)
    # no inference tensor, which could not be written to outside of inference mode
    with torch.inference_mode(False):
        if buffer is None or buffer.numel() < size:
            kept['views'].clear()  # of the smaller buffer
            buffer = buffers[key] = torch.empty(size, dtype=like.dtype, device='cpu')
        if len(kept['views']) >= KEPT_VIEWS:
            kept['views'].clear()
        return kept['views'].setdefault((name, shape, like.dtype), buffer[:size].view(shape))

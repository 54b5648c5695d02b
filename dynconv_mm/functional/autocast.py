"""Automatic mixed precision, asked for in a way that all supported versions of torch have."""
from __future__ import annotations

import torch


def autocast_dtype(tensor: torch.Tensor) -> torch.dtype | None:
    """The dtype in which autocast runs a convolution of ``tensor``, or None where it leaves it as it is."""
    kind = tensor.device.type
    if kind == 'meta':
        return None
    if hasattr(torch, 'get_autocast_dtype'):
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    elif kind == 'cpu':  # torch before 2.4
        dtype = torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    else:
        dtype = torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
    return None if tensor.dtype == torch.float64 else dtype

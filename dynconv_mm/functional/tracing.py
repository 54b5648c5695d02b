"""Whether a call is run, or recorded for a compiler or another runtime."""
from __future__ import annotations

import torch

# torch 2.1 has it elsewhere
_is_compiling = torch.compiler.is_compiling if hasattr(torch.compiler, 'is_compiling') else torch._utils.is_compiling
_is_exporting = getattr(torch.compiler, 'is_exporting', None)


def is_traced() -> bool:
    """Whether the call is being compiled or exported, for batches of any size."""
    return _is_compiling() or is_exported()


def is_exported() -> bool:
    """Whether the call is being recorded for another runtime: by ``torch.export`` or ``torch.jit.trace``.

    ONNX exporters use the one or the other. ``torch.export`` says so from torch 2.7 on.
    """
    return torch.jit.is_tracing() or _is_exporting is not None and _is_exporting()

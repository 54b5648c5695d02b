"""Gradients that can be differentiated again, for functions that write their own backward pass."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def differentiable_gradients(function: Callable[..., Tensor], tensors: Sequence[Tensor | None],
                             needed: Sequence[bool], grad_output: Tensor) -> list[Tensor | None]:
    """The gradients of ``function(*tensors)`` by autograd, which records them (``create_graph=True``).

    A backward pass takes this way where :func:`torch.is_grad_enabled` says that its gradients are to be
    differentiated in turn.

    Args:
        function: made of operations that autograd knows.
        tensors (sequence of Tensor or None): what it takes, the saved tensors of the function's context.
        needed (sequence of bool): whose gradients are needed.
        grad_output (Tensor): gradient of the function's result.

    Returns:
        list[Tensor | None]: one for each of ``tensors``
    """
    # aliases: a tensor may have been computed from another one, and its gradient is not to flow on into that
    aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
    wanted = [alias for alias, needs in zip(aliases, needed) if needs]
    with torch.enable_grad():
        gradients = iter(torch.autograd.grad(function(*aliases), wanted, grad_output, create_graph=True))
    return [next(gradients) if needs else None for needs in needed]

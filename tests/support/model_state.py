"""All that can be seen of a model, to tell whether a function that only asks has changed it."""
from __future__ import annotations

from torch import Tensor, nn


def model_state(model: nn.Module) -> dict:
    """Of each module the attributes, with mode, hooks, parameters, buffers and children; tensors by identity and value,
    on the CPU."""
    return {name: _seen(vars(module)) for name, module in model.named_modules()}


def _seen(value: object) -> object:
    if isinstance(value, Tensor):
        return id(value), value.requires_grad, value.grad is None, value.detach().clone().numpy().tobytes()
    if isinstance(value, nn.Module):
        return id(value)
    if isinstance(value, dict):
        return {key: _seen(item) for key, item in value.items()}
    return value

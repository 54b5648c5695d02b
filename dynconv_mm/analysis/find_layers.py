"""The layers of a model that an analysis looks at."""
from __future__ import annotations

from torch import nn


def find_layers(model: nn.Module, kinds: type | tuple[type, ...]) -> dict[str, nn.Module]:
    """The layers of a model that are of ``kinds``, by name and in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}

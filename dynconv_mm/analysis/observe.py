"""Looking at what methods of a model's layers return while it runs."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

Callback = Callable[[str, tuple, object], None]


@contextmanager
def observe(layers: Mapping[str, nn.Module], method: str, callback: Callback) -> Iterator[None]:
    """Within the block, ``callback`` gets what ``method`` of each layer returns.

    Unlike forward hooks, which make a layer execute otherwise (its batch norm is no longer folded into it), this also
    sees methods that are not called through the module.

    Args:
        layers (Mapping[str, nn.Module]): by name.
        method (str): name of a method that all of them have.
        callback (Callable): takes a layer's name, the method's positional arguments and what it returned.
    """
    before = {name: vars(layer).get(method) for name, layer in layers.items()}

    def watched(name: str, original: Callable) -> Callable:

        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            callback(name, args, result)
            return result

        return call

    try:
        for name, layer in layers.items():
            setattr(layer, method, watched(name, getattr(layer, method)))
        yield
    finally:
        for name, layer in layers.items():
            if before[name] is not None:
                setattr(layer, method, before[name])
            elif method in vars(layer):
                delattr(layer, method)


def find_layers(model: nn.Module, kinds: type | tuple[type, ...]) -> dict[str, nn.Module]:
    """The layers of a model that are of ``kinds``, by name and in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}

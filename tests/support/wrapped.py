"""Ways by which users change, wrap or watch a module without changing its class's code.

Each takes a module, and a list to which it appends the features that the module got, one entry a call. It returns the
module to put in its place, which computes something else than before, so that a call that goes past it shows.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrize

Calls = list[Tensor]


def changed(output: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Another output: half of it, plus 1; of a module that puts out several by name, of each."""
    if isinstance(output, dict):
        return {name: changed(value) for name, value in output.items()}
    return output * 0.5 + 1


def subclass(module: nn.Module, calls: Calls) -> nn.Module:
    """A subclass that overrides ``forward``."""
    parent = type(module)

    class Subclass(parent):

        def forward(self, x: Tensor, *shared: Tensor) -> Tensor:
            calls.append(x)
            return changed(parent.forward(self, x, *shared))

    module.__class__ = Subclass
    return module


def patched_forward(module: nn.Module, calls: Calls) -> nn.Module:
    """An instance whose ``forward`` was replaced."""
    forward = module.forward
    module.forward = lambda x, *shared: (calls.append(x), changed(forward(x, *shared)))[1]
    return module


class Doubled(nn.Module):
    """A wrapper that shows what it wraps, as adapters do."""

    def __init__(self, module: nn.Module, calls: Calls) -> None:
        super().__init__()
        self.module = module
        self.calls = calls

    def forward(self, x: Tensor, *shared: Tensor) -> Tensor:
        self.calls.append(x)
        return changed(self.module(x, *shared))

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


def checkpointed(module: nn.Module, calls: Calls) -> nn.Module:
    """torch's wrapper that computes activations again, around a subclass."""
    return checkpoint_wrapper(subclass(module, calls))


def in_a_sequential(module: nn.Module, calls: Calls) -> nn.Module:
    """A container that shows nothing of what is in it."""
    return nn.Sequential(subclass(module, calls))


def forward_hook(module: nn.Module, calls: Calls) -> nn.Module:
    """A hook that changes the output."""

    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        calls.append(args[0])
        return changed(output)

    module.register_forward_hook(hook)
    return module


def forward_pre_hook(module: nn.Module, calls: Calls) -> nn.Module:
    """A hook that changes the features."""

    def hook(module: nn.Module, args: tuple) -> tuple:
        calls.append(args[0])
        return (args[0] * 0.5 + 1, *args[1:])

    module.register_forward_pre_hook(hook)
    return module


class _Negated(nn.Module):

    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def parametrized(module: nn.Module, calls: Calls) -> nn.Module:
    """A parametrization of the weight, and a hook to count calls."""
    module.register_forward_hook(lambda module, args, output: calls.append(args[0]))
    parametrize.register_parametrization(module, 'weight', _Negated())
    return module


#: by what is done to a module
CHANGES: dict[str, Callable[[nn.Module, Calls], nn.Module]] = {
    'subclass': subclass,
    'patched forward': patched_forward,
    'wrapper': Doubled,
    'checkpoint_wrapper': checkpointed,
    'Sequential': in_a_sequential,
    'forward hook': forward_hook,
    'pre-hook': forward_pre_hook,
    'parametrization': parametrized,
}


class BatchNormAct(nn.BatchNorm2d):
    """A batch norm with an activation in it, as timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(x))


@contextmanager
def global_hooks(watched: nn.Module, calls: Calls) -> Iterator[None]:
    """Hooks of all modules: one notes what ``watched`` gets, one changes what it puts out."""
    handles = [
        register_module_forward_pre_hook(lambda module, args: calls.append(args[0]) if module is watched else None),
        register_module_forward_hook(lambda module, args, output: changed(output) if module is watched else None),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

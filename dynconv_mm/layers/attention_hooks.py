"""Hooks that see the attentions of a layer."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class AttentionHooks(nn.Module):
    """A layer that computes attentions in :meth:`compute_attentions`, and calls its hooks with them."""

    def _init_attention_hooks(self) -> None:
        self._attention_hooks: OrderedDict[int, Callable] = OrderedDict()

    def register_attention_hook(self, hook: Callable[[nn.Module, dict[str, Tensor]], None]) -> RemovableHandle:
        """Let ``hook(layer, attentions)`` see the attentions of each call, as :meth:`compute_attentions` returns them.

        Returns:
            RemovableHandle: its ``remove()`` removes the hook.
        """
        handle = RemovableHandle(self._attention_hooks)
        self._attention_hooks[handle.id] = hook
        return handle

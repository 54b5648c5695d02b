"""Statistics of attentions by layer over many images (ODConv, A.6, Fig. 6)."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn

from ..layers.attention_hooks import AttentionHooks
from ..layers.condconv import CondConv2d, CondConvRouting
from ..layers.kernel_warehouse import WarehouseLayer
from .find_layers import find_layers
from .running_statistics import RunningStatistics


class AttentionStatistics:
    """Collects the attentions of ODConv, DyConv, FDConv and KernelWarehouse layers and the routing weights of CondConv.

    CondConv's are collected where they are computed, once for all convolutions that share them; FDConv's without the
    local ones, of which there is one for each element of a kernel.

    Args:
        model (nn.Module): has any number of such layers.
        bins (int): of the histograms from 0 to 1. Default: 100.

    Attributes:
        layers (dict[str, dict[str, RunningStatistics]]): by layer and attention ('spatial', 'channel', 'filter',
            'kernel'); an entry is an element of the attention. Of a KernelWarehouse 'cell': how much of each cell,
            added or subtracted, is in a mixture, on average over the layer's. Filled within :meth:`collect`.

    Example:
        >>> from dynconv_mm import ODConv2d
        >>> model = nn.Sequential(ODConv2d(3, 4, 3)).eval()
        >>> statistics = AttentionStatistics(model)
        >>> with statistics.collect():
        ...     y = model(torch.randn(2, 3, 8, 8))
        >>> statistics.layers['0']['spatial'].mean.shape
        torch.Size([9])
    """

    def __init__(self, model: nn.Module, bins: int = 100) -> None:
        self.bins = bins
        self.layers: dict[str, dict[str, RunningStatistics]] = {}
        self._routings = find_layers(model, CondConvRouting)
        self._cells = {name: layer.attention for name, layer in find_layers(model, WarehouseLayer).items()}
        self._mixtures = {name: layer for name, layer in find_layers(model, AttentionHooks).items()
                          if not isinstance(layer, CondConv2d)}

    def __bool__(self) -> bool:
        """Whether the model has anything to collect."""
        return bool(self._routings or self._mixtures or self._cells)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Within the block, what the model runs on is counted."""
        with ExitStack() as stack:
            for name, routing in self._routings.items():
                stack.enter_context(routing.register_forward_hook(partial(self._add_routing, name)))
            for name, attention in self._cells.items():
                stack.enter_context(attention.register_forward_hook(partial(self._add_cells, name)))
            for name, layer in self._mixtures.items():
                stack.enter_context(layer.register_attention_hook(partial(self._add, name)))
            yield

    def _add_routing(self, name: str, routing: nn.Module, args: tuple, weights: Tensor) -> None:
        self._add(name, routing, dict(kernel=weights))

    def _add_cells(self, name: str, attention: nn.Module, args: tuple, mixtures: Tensor) -> None:
        self._add(name, attention, dict(cell=mixtures.abs().mean(1)))

    def _add(self, name: str, module: nn.Module, attentions: dict[str, Tensor]) -> None:
        layer = self.layers.setdefault(name, {})
        for kind, values in attentions.items():
            layer.setdefault(kind, RunningStatistics(self.bins)).update(values)

    def to_json(self) -> dict[str, dict[str, dict]]:
        """Plain numbers: for each layer and attention, over all values and for each element."""
        return {name: {kind: dict(statistics.summary(), samples=statistics.count,
                                  histogram=statistics.histogram.tolist(),
                                  element_mean=statistics.mean.tolist(),
                                  element_std=statistics.variance.sqrt().tolist())
                       for kind, statistics in attentions.items()} for name, attentions in self.layers.items()}

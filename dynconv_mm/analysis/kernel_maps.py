"""Kernels that a layer predicts from its input, over positions (LSA, involution) or for the image (GSI).

DCDC, IV-A5, Fig. 5; each kernel is shown by the sum of its k × k elements, as in the Involution paper (CVPR 2021).
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn

from ..layers.dcdc import GSI
from ..layers.involution import Involution2d
from .find_layers import find_layers
from .running_statistics import RunningStatistics


class KernelMaps:
    """Collects the predicted kernels of involution and DCDC layers.

    Args:
        model (nn.Module): has any number of such layers.

    Attributes:
        position_maps (dict[str, Tensor]): of the last batch, by involution or LSA: the sums of the kernels' elements,
            Tensor[batch, groups, height, width].
        image_maps (dict[str, Tensor]): of the last batch, by GSI: the same, Tensor[batch, c, c], output channels
            first.
        variation (dict[str, RunningStatistics]): over all images, by layer. Of a position map its standard deviation
            over the positions of an image, by group; of an image map its entries.
    """

    def __init__(self, model: nn.Module) -> None:
        self._involutions = find_layers(model, Involution2d)
        self._gsi = {name: layer for name, layer in find_layers(model, GSI).items() if layer.fc is not None}
        self.position_maps: dict[str, Tensor] = {}
        self.image_maps: dict[str, Tensor] = {}
        self.variation: dict[str, RunningStatistics] = {}

    def __bool__(self) -> bool:
        """Whether the model has anything to collect."""
        return bool(self._involutions or self._gsi)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Within the block, what the model runs on is counted and kept until the next batch."""
        with ExitStack() as stack:
            for name, layer in self._involutions.items():
                last = getattr(layer, layer.branch[-1])
                stack.enter_context(last.register_forward_hook(partial(self._add_positions, name)))
            for name, layer in self._gsi.items():
                stack.enter_context(layer.fc.register_forward_hook(partial(self._add_image, name)))
            yield

    def _add_positions(self, name: str, module: nn.Module, args: tuple, kernels: Tensor) -> None:
        layer = self._involutions[name]
        groups = layer.in_channels // layer.group_channels
        self.position_maps[name] = kernels.detach().unflatten(1, (groups, *layer.kernel_size)).sum((2, 3))
        maps = self.position_maps[name].double().flatten(2)
        self._vary(name, maps.std(2, correction=0))

    def _add_image(self, name: str, module: nn.Module, args: tuple, kernel: Tensor) -> None:
        size, channels = self._gsi[name].kernel_size, self._gsi[name].conv1.out_channels
        self.image_maps[name] = kernel.detach().unflatten(1, (channels, channels, size, size)).sum((3, 4))
        self._vary(name, self.image_maps[name])

    def _vary(self, name: str, values: Tensor) -> None:
        self.variation.setdefault(name, RunningStatistics()).update(values)

    def to_json(self) -> dict[str, dict]:
        """Plain numbers by layer: how the summed kernels vary over positions, or from image to image."""
        figures = {}
        for name, statistics in self.variation.items():
            if name in self._involutions:
                figures[name] = dict(varies_over='positions', std=statistics.mean.mean().item(),
                                     std_by_group=statistics.mean.tolist())
            else:
                figures[name] = dict(varies_over='images', std=statistics.variance.sqrt().mean().item())
        return figures

"""How much Φ(x) of DCD varies from image to image, by layer (DCD, 5.4, Fig. 6)."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn

from ..layers.dcd import DCDConv2d
from ..layers.dcd_base import DCDBase
from .find_layers import find_layers
from .running_statistics import RunningStatistics


class PhiVariance:
    r"""Collects Φ(x) of DCD's convolutions and classifiers.

    .. math:: \sigma_\Phi = \sum_{i,j} \sigma_{i,j} / L^2

    with σ_ij the variance of φ_ij(x) over images. "To compare σ_Φ across layers, we normalize it by the variance of
    the corresponding input feature map": read here as the variance of all values of the layer's input, over images,
    channels and positions.

    Args:
        model (nn.Module): has any number of DCD's layers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._fusions = {name: layer for name, layer in find_layers(model, DCDBase).items()
                         if layer.latent_channels}
        self._phi: dict[str, RunningStatistics] = {}
        self._inputs: dict[str, RunningStatistics] = {}

    def __bool__(self) -> bool:
        """Whether the model has anything to collect."""
        return bool(self._fusions)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Within the block, what the model runs on is counted."""
        with ExitStack() as stack:
            for name, layer in self._fusions.items():
                # a classifier's features are of one position, and are what its branch sees
                takes_input = layer if isinstance(layer, DCDConv2d) else layer.fc
                stack.enter_context(takes_input.register_forward_pre_hook(partial(self._add_input, name)))
                stack.enter_context(layer.fc_phi.register_forward_hook(partial(self._add_phi, name)))
            yield

    def _add_input(self, name: str, module: nn.Module, args: tuple) -> None:
        self._inputs.setdefault(name, RunningStatistics()).update(args[0].flatten())

    def _add_phi(self, name: str, module: nn.Module, args: tuple, phi: Tensor) -> None:
        self._phi.setdefault(name, RunningStatistics()).update(phi)

    @property
    def layers(self) -> dict[str, dict[str, float]]:
        """By layer: 'phi', σ_Φ; 'input', the variance of the input; 'normalized', their ratio."""
        figures = {}
        for name, phi in self._phi.items():
            variance, of_input = phi.variance.mean().item(), self._inputs[name].variance.item()
            figures[name] = dict(phi=variance, input=of_input,
                                 normalized=variance / of_input if of_input else float('nan'))
        return figures

    def to_json(self) -> dict[str, dict[str, float]]:
        """:attr:`layers`."""
        return self.layers

"""The temperature by which a layer divides its attention logits (DyConv, CVPR 2020, Eq. 5)."""
from __future__ import annotations

import math

import torch
from torch import nn


def check_temperature(temperature: float, name: str = 'temperature') -> None:
    """Raise a ValueError that names the argument unless it is a positive, finite number."""
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) \
            or not 0 < temperature < math.inf:
        raise ValueError(f'{name} must be a positive number, but is {temperature!r}')


class TemperatureMixin(nn.Module):
    """A module with a temperature, which :class:`TemperatureAnnealingHook` finds and sets.

    The temperature is a persistent buffer: a checkpoint taken in mid-annealing tests as it trained, and
    compiled code is not compiled again when it changes. A state dict without it, such as those of the
    reference implementations, loads as a temperature of 1.
    """

    def _init_temperature(self, temperature: float) -> None:
        check_temperature(temperature)
        self.register_buffer('temperature', torch.tensor(float(temperature)))

    def set_temperature(self, temperature: float) -> None:
        """Divide attention logits by ``temperature`` from now on.

        Raises:
            ValueError: ``temperature`` is not a positive number.
        """
        check_temperature(temperature)
        self.temperature.fill_(temperature)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # else it is a part of a state dict, which says nothing of what it leaves out
        if all(prefix + name in state_dict for name, own in self._parameters.items() if own is not None):
            # Not on the meta device, where load_state_dict(assign=True) would leave it.
            device = 'cpu' if self.temperature.is_meta else None
            state_dict.setdefault(prefix + 'temperature', torch.ones_like(self.temperature, device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)

"""The temperature of a layer's attentions, by which it divides their logits (DyConv, CVPR 2020, Eq. 5)."""
from __future__ import annotations

import math

import torch
from torch import nn


def check_temperature(temperature: float, name: str = 'temperature', least: float | None = None,
                      most: float = math.inf) -> None:
    """Raise a ValueError that names the argument unless it is a positive, finite number.

    Args:
        temperature (float): its value.
        name (str): the argument. Default: 'temperature'.
        least (float, optional): in place of a positive one it is to be at least this. Default: None.
        most (float): it is to be at most this. Default: any.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not temperature < math.inf \
            or not (temperature > 0 if least is None else least <= temperature <= most):
        kind = 'a positive number' if least is None else f'a number of at least {least:g}'
        raise ValueError(f'{name} must be {kind}{"" if most == math.inf else f" and at most {most:g}"}, but is '
                         f'{temperature!r}')


class TemperatureMixin(nn.Module):
    """A module with a temperature, which :class:`TemperatureAnnealingHook` finds and sets.

    The temperature is a persistent buffer: a checkpoint taken in mid-annealing tests as it trained, and
    compiled code is not compiled again when it changes. A state dict without it, such as those of the
    reference implementations, loads as :attr:`trained_temperature`.
    """

    trained_temperature = 1.
    """That of a trained layer."""

    def _init_temperature(self, temperature: float) -> None:
        self.check_temperature(temperature)
        self.register_buffer('temperature', torch.tensor(float(temperature)))

    def check_temperature(self, temperature: float) -> None:
        """Raise a ValueError unless it is one that the layer takes: a positive number."""
        check_temperature(temperature)

    def set_temperature(self, temperature: float) -> None:
        """Compute attentions at this temperature from now on.

        Raises:
            ValueError: as of :meth:`check_temperature`.
        """
        self.check_temperature(temperature)
        self.temperature.fill_(temperature)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # else it is a part of a state dict, which says nothing of what it leaves out
        if all(prefix + name in state_dict for name, _ in self.named_parameters()):
            # Not on the meta device, where load_state_dict(assign=True) would leave it.
            device = 'cpu' if self.temperature.is_meta else None
            trained = torch.full_like(self.temperature, self.trained_temperature, device=device)
            state_dict.setdefault(prefix + 'temperature', trained)
        super()._load_from_state_dict(state_dict, prefix, *args)

"""The released layers' weights, inputs, outputs and gradients, of tests/data/golden, in float64."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parents[1] / 'data' / 'golden'


class Golden:
    """What one file holds.

    Attributes:
        meta (dict): how the released layer was built.
        arrays (dict[str, Tensor]): all else, by its name in the file.
        state_dict (dict[str, Tensor]): its weights.
        gradients (dict[str, Tensor]): of these.
    """

    def __init__(self, name: str) -> None:
        arrays = dict(np.load(FOLDER / f'{name}.npz'))
        self.meta = json.loads(str(arrays.pop('meta')))
        self.arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.state_dict, self.gradients = self._under('sd/'), self._under('grad/')

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    def check(self, layer: nn.Module, given: Callable[[Tensor], object] = lambda x: x) -> Tensor:
        """Fail unless a layer with the released weights puts out the same, in eval mode and in training, and passes
        the same gradients on.

        Args:
            layer (Module): the layer.
            given (Callable): makes what the layer is called with of its input.

        Returns:
            Tensor: the released input.
        """
        layer.double().eval().load_state_dict(self.state_dict, strict=True)
        x = self.arrays['x'].double().requires_grad_()
        y = layer(given(x))
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape))
        assert self.gradients
        for name, actual, expected in (
                ('output', y, self.arrays['y_eval']), ('gradient of x', x.grad, self.arrays['dx']),
                *((f'gradient of {key}', layer.get_parameter(key).grad, value)
                  for key, value in self.gradients.items()),
                ('output in training', layer.train()(given(x)), self.arrays['y_train'])):
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9,
                                       msg=lambda text, name=name: f'{name}: {text}')
        return x

"""What the execution plans cost on a machine: measured on the layers of common networks, and fitted."""
from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..functional.cost_model import QUANTITIES, Shape
from ..functional.mixture_conv import MIXTURE_CONV, PLANS, Mixture, mixture_conv2d
from .timing import time_in_turns

# in_channels, out_channels, kernel_size, input size, stride, groups
LAYERS = (
    # ResNet-18, -50
    (64, 64, 1, 56, 1, 1), (64, 64, 3, 56, 1, 1), (64, 256, 1, 56, 1, 1), (256, 64, 1, 56, 1, 1),
    (128, 128, 3, 56, 2, 1), (128, 128, 3, 28, 1, 1), (512, 128, 1, 28, 1, 1), (128, 512, 1, 28, 1, 1),
    (256, 256, 3, 28, 2, 1), (256, 256, 3, 14, 1, 1), (256, 1024, 1, 14, 1, 1), (1024, 256, 1, 14, 1, 1),
    (512, 512, 3, 14, 2, 1), (512, 512, 3, 7, 1, 1), (512, 2048, 1, 7, 1, 1), (2048, 512, 1, 7, 1, 1),
    # MobileNetV2
    (16, 96, 1, 112, 1, 1), (96, 96, 3, 112, 2, 96), (96, 24, 1, 56, 1, 1), (24, 144, 1, 56, 1, 1),
    (144, 144, 3, 56, 1, 144), (144, 32, 1, 28, 1, 1), (32, 192, 1, 28, 1, 1), (192, 192, 3, 28, 1, 192),
    (384, 384, 3, 14, 1, 384), (384, 64, 1, 14, 1, 1), (96, 576, 1, 14, 1, 1), (576, 576, 3, 14, 2, 576),
    (160, 960, 1, 7, 1, 1), (960, 960, 3, 7, 1, 960), (960, 160, 1, 7, 1, 1), (320, 1280, 1, 7, 1, 1),
    # few pixels; groups
    (512, 512, 3, 2, 1, 1), (256, 256, 1, 1, 1, 1), (1280, 1000, 1, 1, 1, 1),
    (128, 128, 3, 56, 1, 32), (256, 256, 3, 28, 1, 32), (512, 512, 3, 14, 1, 32), (1024, 1024, 3, 7, 1, 32),
)
BATCHES = (1, 2, 8)
# ResNet-18 and MobileNetV2 with a quarter of the channels, on small pictures: what a call or a sample costs shows there
THIN_LAYERS = (
    (16, 16, 3, 32, 1, 1), (16, 16, 3, 8, 1, 1), (16, 32, 3, 8, 2, 1), (16, 32, 1, 8, 2, 1), (32, 32, 3, 16, 1, 1),
    (32, 32, 3, 4, 1, 1), (32, 64, 1, 4, 1, 1), (64, 64, 3, 8, 1, 1), (64, 64, 3, 4, 1, 1), (32, 32, 3, 8, 1, 8),
    (8, 48, 1, 24, 1, 1), (48, 48, 3, 24, 2, 48), (48, 8, 1, 12, 1, 1), (96, 96, 3, 6, 1, 96), (96, 16, 1, 6, 1, 1),
    (40, 240, 1, 3, 1, 1), (240, 240, 3, 3, 1, 240),
)
THIN_BATCHES = (8, 64)
KERNEL_NUMS = (1, 4)
# plans that cannot pay off there are not measured: n convolutions where there are many pixels
FEW_PIXELS = 49


class Case(NamedTuple):
    """A layer to measure."""

    shape: Shape
    mixture: Mixture


def cases(is_training: bool, seed: int = 0, layers: Sequence[tuple[int, ...]] | None = None,
          batches: Sequence[int] | None = None, device: torch.device = torch.device('cpu'),
          dtype: torch.dtype = torch.float32, channels_last: bool = False) -> Iterator[Case]:
    """All layers, batches and numbers of kernels, with random tensors; by default ``LAYERS`` and ``BATCHES``."""
    generator = torch.Generator(device).manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=device, dtype=dtype).requires_grad_(is_training)

    for (c_in, c_out, k, size, stride, groups), batch, n in itertools.product(layers or LAYERS, batches or BATCHES,
                                                                              KERNEL_NUMS):
        padding, x = k // 2, rand(batch, c_in, size, size)
        if channels_last:
            x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_(is_training)
        m = Mixture(x, rand(n, c_out, c_in // groups, k, k), None,
                    rand(batch, n) if n > 1 else None, rand(batch, k * k) if k > 1 else None, rand(batch, c_in),
                    rand(batch, c_out), (stride, stride), (padding, padding), (1, 1), groups, True)
        yield Case(Shape(batch, n, c_in, c_out, groups, (k, k), (size, size), m.output_size, is_training), m)


def candidates(m: Mixture) -> list[str]:
    """The plans to measure for a mixture; the one for want of memory is another one with a sample at a time, and never
    the fastest by more than chance."""
    able = [name for name in PLANS if MIXTURE_CONV.refusal(name, m, m.input.requires_grad) is None
            and name != MIXTURE_CONV.frugal]
    if m.output_size[0] * m.output_size[1] > FEW_PIXELS or m.groups > 1:
        able.remove('mix_after') if 'mix_after' in able else None
    return able


def measure(case: Case, rounds: int, plans: Sequence[str] | None = None) -> dict[str, float]:
    """Milliseconds by plan, by default of all that serve: of the output, and in training of all gradients too."""
    m = case.mixture
    tensors = [value for value in m[:7] if value is not None]
    arguments = m._asdict()
    del arguments['shares_attention']

    def call(plan: str):
        y = mixture_conv2d(**arguments, plan=plan)
        if case.shape.is_training:
            torch.autograd.grad(y, tensors, torch.ones_like(y))

    with torch.set_grad_enabled(case.shape.is_training):
        calls = {plan: lambda plan=plan: call(plan) for plan in (candidates(m) if plans is None else plans)}
        return {plan: timing.milliseconds for plan, timing in time_in_turns(calls, range(rounds)).items()}


def fit(measurements: list[tuple[Shape, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Coefficients of the cost model: none negative, the relative error the least.

    Args:
        measurements: milliseconds by plan for each shape.

    Returns:
        dict: by kind of convolution, then by plan, a coefficient for each of ``QUANTITIES``.
    """
    from scipy.optimize import nnls
    coefficients: dict[str, dict[str, list[float]]] = {}
    for kind in sorted({shape.kind for shape, _ in measurements}):
        coefficients[kind] = {}
        for plan in PLANS:
            rows = [(shape.quantities(), times[plan]) for shape, times in measurements
                    if shape.kind == kind and plan in times]
            if not rows:
                continue
            quantities = np.array([quantity for quantity, _ in rows])
            times = np.array([milliseconds for _, milliseconds in rows])
            solution, _ = nnls(quantities / times[:, None], np.ones(len(times)))
            coefficients[kind][plan] = [float(f'{value:.3g}') for value in solution]
    assert all(len(c) == len(QUANTITIES) for plans in coefficients.values() for c in plans.values())
    return coefficients


def regret(measurements: list[tuple[Shape, dict[str, float]]], chosen: dict[Shape, str]) -> float:
    """Time of the chosen plans over the time of the best ones, in all: 1 is a perfect choice."""
    return (sum(times[chosen[shape]] for shape, times in measurements)
            / sum(min(times.values()) for _, times in measurements))

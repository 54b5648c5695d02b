"""Kernels and features in the Fourier domain (FDConv, CVPR 2025).

Both operators run the Fast Fourier Transform in eager mode; a graph for another runtime gets them as products.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .involution import accumulation_dtype
from .operator import Backend, Operator, full_precision

GRID = 64
"""Frequencies on each side of the grid on which low passes are defined."""
BANDS = (15, 8, 4)
"""The last frequency that a low pass keeps, in 1/64 cycles a pixel. They are those below 0.5 / p + 1e-8 for p = 2, 4
and 8, which in the release's float32 leaves out 1/4 and takes in 1/8 and 1/16."""


class FrequencyKernels(NamedTuple):
    """The arguments of :func:`frequency_kernels`."""

    attention: Tensor
    weight: Tensor
    groups: Tensor
    columns: int


class FrequencyBands(NamedTuple):
    """The arguments of :func:`frequency_bands`."""

    input: Tensor
    gates: Tensor


def coefficient_groups(rows: int, columns: int, groups: int) -> Tensor:
    """The group of each coefficient of a real matrix's Fourier transform.

    Coefficients are ordered by the distance of their frequency from 0, those at the same distance by row and column,
    and cut into groups of neighbours. Where ``groups`` does not divide their number, groups differ by one coefficient.

    Args:
        rows, columns (int): of the matrix.
        groups (int): n, at most 256.

    Returns:
        Tensor[rows, columns // 2 + 1]: from 0 to n − 1, as uint8.
    """
    row, column = torch.arange(rows)[:, None], torch.arange(columns // 2 + 1)
    # the distance times rows * columns, squared: an integer, so that no rounding parts equal distances
    distance = (torch.minimum(row, rows - row) * columns)**2 + (column * rows)**2
    return groups_of_order(distance.flatten().sort(stable=True)[1], groups).view(distance.shape)


def groups_of_order(order: Tensor, groups: int) -> Tensor:
    """The group of each coefficient, Tensor[count] as uint8, by the coefficients' order, Tensor[count]."""
    count = len(order)
    return torch.empty_like(order).scatter_(0, order, torch.arange(count) * groups // count).to(torch.uint8)


def frequency_kernels(attention: Tensor, weight: Tensor, groups: Tensor, columns: int,
                      scale: float = 1.) -> Tensor:
    r"""Each sample's matrix of which groups of Fourier coefficients are attended to (FDConv, Eq. 3 and 4).

    .. math:: W_b = \mathcal{F}^{-1}\Big(\sum_i \alpha_{bi} \, P_i\Big)

    with P_i the map of coefficients in which all but those of group i are 0. Half precision is transformed in float32,
    and so it is under autocast.

    Args:
        attention (Tensor[batch, n]): α.
        weight (Tensor[rows, columns // 2 + 1, 2]): the coefficients, real and imaginary.
        groups (Tensor[rows, columns // 2 + 1]): the group of each, uint8.
        columns (int): of the matrix.
        scale (float): multiplies it. Default: 1.

    Returns:
        Tensor[batch, rows, columns], of the weight's dtype
    """
    dtype = accumulation_dtype(weight.dtype)
    with full_precision(attention):
        y = FREQUENCY_KERNELS(FrequencyKernels(attention.to(dtype) * scale, weight.to(dtype), groups, columns))
    return y.to(weight.dtype)


def frequency_bands(input: Tensor, gates: Tensor) -> Tensor:
    """Features whose frequency bands are weighted, position by position (FDConv, Eq. 8 to 10).

    A band is what lies between two of the low passes of :data:`BANDS`, the first of them between the features
    themselves and the first low pass; the last low pass is added as it is. A low pass keeps those frequencies of which
    neither that of the rows nor that of the columns is larger. The masks are those of a 64×64 grid,
    resized to that of the map by nearest neighbours. Half precision is transformed in float32, and so it is under
    autocast.

    Args:
        input (Tensor[batch, channels, height, width]): features.
        gates (Tensor[batch, bands, height, width]): the weights.

    Returns:
        Tensor[batch, channels, height, width], of the input's dtype
    """
    dtype = accumulation_dtype(input.dtype)
    with full_precision(input):
        y = FREQUENCY_BANDS(FrequencyBands(input.to(dtype), gates.to(dtype)))
    return y.to(input.dtype)


def _spectra(call: FrequencyKernels) -> Tensor:
    """The attended coefficients, Tensor[batch, rows, columns // 2 + 1, 2]."""
    attention, weight, groups, _ = call
    index = groups.flatten().long().expand(attention.shape[0], -1)
    return attention.gather(1, index).unflatten(1, groups.shape)[..., None] * weight


def _inverse(spectra: Tensor, columns: int) -> Tensor:
    """The real matrices, Tensor[…, rows, columns]; one transform after the other is faster than ``irfft2``."""
    return torch.fft.irfft(torch.fft.ifft(torch.view_as_complex(spectra), dim=-2), n=columns)


def fft(call: FrequencyKernels) -> Tensor:
    """A transform for each sample."""
    return _inverse(_spectra(call), call.columns)


def mixture(call: FrequencyKernels) -> Tensor:
    """A transform for each group, as it is linear, and a product."""
    one_hot = torch.eye(call.attention.shape[1], dtype=call.attention.dtype, device=call.attention.device)
    bank = fft(call._replace(attention=one_hot))
    return (call.attention @ bank.flatten(1)).unflatten(1, bank.shape[1:])


def _kept(length: int, half: bool, last: int, like: Tensor) -> Tensor:
    """Which of a map's frequencies the low pass keeps, of one dimension: 1 or 0.

    Args:
        length (int): how many frequencies there are.
        half (bool): whether they are those from 0 on alone, else as of a complex transform.
        last (int): one of :data:`BANDS`.
        like (Tensor): gives dtype and device.
    """
    size = GRID // 2 + 1 if half else GRID
    # as torch resizes by nearest neighbours: in float32
    places = torch.arange(length, device=like.device, dtype=torch.float32)
    index = (places * (torch.full_like(places, size) / length)).floor()
    nearest = index if half else torch.minimum(index, GRID - index)
    return (nearest <= last).to(like.dtype)


def _combine(call: FrequencyBands, lows: list[Tensor]) -> Tensor:
    """The weighted bands and the last low pass, by low passes: where all weights are 1, exactly the features."""
    x, gates = call
    gates = [gates[:, i:i + 1] for i in range(len(lows))]
    y = x * gates[0]
    for low, gate, after in zip(lows, gates, (*gates[1:], None)):
        y = y + low * ((1 if after is None else after) - gate)
    return y


def kernels(call: FrequencyKernels) -> Tensor:
    """A transform for each sample, and of no samples a product, as libraries transform nothing that is empty."""
    return (fft if call.attention.shape[0] else mixture)(call)


def bands(call: FrequencyBands) -> Tensor:
    """The low passes by Fourier transforms."""
    if call.input.shape[0] == 0:
        return call.input * call.gates[:, :1]
    height, width = call.input.shape[2:]
    spectrum, lows = torch.fft.rfft2(call.input), []
    for last in BANDS:
        rows = _kept(height, False, last, call.input)
        columns = _kept(spectrum.shape[3], True, last, call.input)
        lows.append(torch.fft.irfft2(spectrum * (rows[:, None] * columns), s=(height, width)))
    return _combine(call, lows)


# As products: for runtimes that have no Fourier transforms.


def _waves(times: Tensor, frequencies: Tensor, period: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2π t f / period, each Tensor[times, frequencies]."""
    product = times.to(dtype)[:, None] * frequencies.to(dtype)  # a whole number, of which whole periods are taken
    angle = (product - (product / period).floor() * period) * (2 * math.pi / period)
    return angle.cos(), angle.sin()


def _count(frequencies: Tensor, period: int) -> Tensor:
    """How often each frequency from 0 on is in a real transform: twice, but for 0 and for its own negative."""
    return 2 - torch.logical_or(frequencies == 0, frequencies * 2 == period).long()


def bands_by_products(call: FrequencyBands) -> Tensor:
    """Each low pass by matrices of the map's rows and columns, for maps of any size.

    The masks of rows, resized, are not symmetric, so that their matrix is complex, R + iJ; that of the columns, of
    which real maps have half, is E for real maps and O for imaginary ones. The real part is R x Eᵀ − J x Oᵀ.
    """
    x, lows = call.input, []
    height, width = x.shape[2:]
    row, column = (torch.arange(length, device=x.device) for length in (height, width))
    half = torch.arange(width // 2 + 1, device=x.device)
    row_cos, row_sin = _waves(row, row, height, x.dtype)
    column_cos, column_sin = _waves(column, half, width, x.dtype)
    count = _count(half, width).to(x.dtype)
    for last in BANDS:
        kept_rows = _kept(height, False, last, x) / height
        kept_columns = _kept(width // 2 + 1, True, last, x) * count / width
        real = (row_cos * kept_rows) @ row_cos.T + (row_sin * kept_rows) @ row_sin.T
        imaginary = (row_sin * kept_rows) @ row_cos.T - (row_cos * kept_rows) @ row_sin.T
        even = column_cos @ (column_cos * kept_columns).T + column_sin @ (column_sin * kept_columns).T
        odd = column_cos @ (column_sin * kept_columns).T - column_sin @ (column_cos * kept_columns).T  # transposed
        lows.append(real @ x @ even - imaginary @ x @ odd)
    return _combine(call, lows)


def kernels_by_products(call: FrequencyKernels) -> Tensor:
    """The transforms as matrix products, columns after rows."""
    spectra, (rows, columns) = _spectra(call).movedim(3, 1), (call.groups.shape[0], call.columns)
    count = _count(torch.arange(call.groups.shape[1], device=spectra.device), columns).to(spectra.dtype)
    half = _inverse_by_products(spectra, rows, 2) * (count / (rows * columns))
    return _inverse_by_products(half.transpose(2, 3), columns, 1)[:, 0].transpose(1, 2)


def _inverse_by_products(x: Tensor, length: int, parts: int) -> Tensor:
    """A transform by products with matrices of p·p and q·q numbers, length = p·q (Cooley and Tukey).

    Args:
        x (Tensor[batch, 2, frequencies, others]): coefficients, real and imaginary; those of frequencies that are
            missing are 0.
        length (int): of the result.
        parts (int): 2, or 1 for the real part alone.

    Returns:
        Tensor[batch, parts, length, others]
    """
    frequencies, others = map(int, x.shape[2:])  # constants: a graph rounds negative quotients up
    p = max(divisor for divisor in range(1, math.isqrt(length) + 1) if length % divisor == 0)
    q = length // p
    used = -(-frequencies // q)

    def waves(times: int, frequencies: int, period: int) -> tuple[Tensor, Tensor]:
        device = x.device
        return _waves(torch.arange(times, device=device), torch.arange(frequencies, device=device), period, x.dtype)

    x = F.pad(x, (0, 0, 0, used * q - frequencies)).reshape(-1, 2 * used, q * others)
    cos, sin = waves(p, used, p)
    y = torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)]) @ x
    real, imaginary = y.reshape(-1, 2, p, q, others).unbind(1)
    cos, sin = (wave[:, :, None] for wave in waves(p, q, length))
    y = torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], 2)  # [batch, p, 2 q, others]
    cos, sin = waves(q, q, q)
    rows = [torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)]
    y = (torch.cat(rows[:parts]) @ y).reshape(-1, p, parts, q, others)
    return y.permute(0, 2, 3, 1, 4).reshape(-1, parts, length, others)


def _rank(call: FrequencyKernels, needs_grad: bool) -> tuple[str, ...]:
    return ('mixture', ) if len(call.attention) > call.attention.shape[1] else ('fft', )


FREQUENCY_KERNELS = Operator(2, kernels, _rank)
FREQUENCY_KERNELS.backends.update(fft=Backend(fft), mixture=Backend(mixture))
FREQUENCY_KERNELS.exported = kernels_by_products
FREQUENCY_BANDS = Operator(2, bands)
FREQUENCY_BANDS.exported = bands_by_products

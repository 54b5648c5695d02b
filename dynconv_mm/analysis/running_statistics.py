"""Mean, variance, extremes and histogram of values that come in batches, in the memory of one batch."""
from __future__ import annotations

import torch
from torch import Tensor


class RunningStatistics:
    """Statistics of each of several entries over the samples of all batches, in float64.

    Batches are merged as Chan, Golub and LeVeque do ("Updating formulae and a pairwise algorithm for computing sample
    variances", 1979), which for batches of one is Welford's algorithm. Variances are those of a population, over n.

    Args:
        bins (int): of the histogram of all entries together; 0 is no histogram. Default: 0.
        low, high (float): limits of the histogram. Default: 0 and 1.

    Raises:
        ValueError: ``bins`` or the limits make no histogram.
    """

    def __init__(self, bins: int = 0, low: float = 0., high: float = 1.) -> None:
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 0:
            raise ValueError(f'bins must be an int from 0 on, but is {bins!r}')
        if not low < high:
            raise ValueError(f'low must be below high, but low={low!r} and high={high!r}')
        self.low, self.high = low, high
        self.count = 0
        self.histogram = torch.zeros(bins, dtype=torch.int64)

    def update(self, values: Tensor) -> None:
        """Take a batch into account.

        Args:
            values (Tensor[batch, ...]): the entries of each sample, of the same shape in all batches.

        Raises:
            ValueError: the entries are of another shape than before, or lie beyond the limits of the histogram.
        """
        if len(values) == 0:
            return
        values = values.detach().to(torch.float64)
        count, mean = len(values), values.mean(0)
        squares = (values - mean).square().sum(0)
        lowest, highest = values.amin(0), values.amax(0)
        if not self.count:
            self.mean, self.squares, self.minimum, self.maximum = mean, squares, lowest, highest
        else:
            if mean.shape != self.mean.shape:
                raise ValueError(f'values must have entries of shape {list(self.mean.shape)} as before, but have '
                                 f'{list(mean.shape)}')
            total, delta = self.count + count, mean - self.mean
            self.mean = self.mean + delta * (count / total)
            self.squares = self.squares + squares + delta.square() * (self.count * count / total)
            self.minimum = torch.minimum(self.minimum, lowest)
            self.maximum = torch.maximum(self.maximum, highest)
        self.count += count
        if len(self.histogram):
            # written so that NaN fails too
            if not bool((lowest >= self.low).all() and (highest <= self.high).all()):
                raise ValueError(f'values must lie from {self.low} to {self.high}, the limits of the histogram, but go '
                                 f'from {lowest.min().item():g} to {highest.max().item():g}')
            self.histogram += torch.histc(values, len(self.histogram), self.low, self.high).to('cpu', torch.int64)

    @property
    def variance(self) -> Tensor:
        """Tensor[...], of each entry over the samples."""
        return self.squares / self.count

    def summary(self) -> dict[str, float]:
        """Mean, standard deviation, minimum and maximum of the values of all entries and samples together."""
        spread = self.mean.var(correction=0) if self.mean.numel() > 1 else 0.
        return dict(mean=self.mean.mean().item(), std=(self.variance.mean() + spread).sqrt().item(),
                    min=self.minimum.min().item(), max=self.maximum.max().item())

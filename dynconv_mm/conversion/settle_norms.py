"""Running statistics for a network that has learned nothing, so that what it puts out depends on its input."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Variance that norms of vectors, those in attentions, get, as a multiple of the one found. Fresh attentions answer to
# small differences with large ones, so that a deep network of them magnifies rounding as much as it does its input.
CALM = 100
LEAST_VARIANCE = .1  # theirs then


def random_images(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Noise of other brightness and contrast in each image, so that attentions, which see averages, differ.

    Args:
        batch, channels, height, width (int): the shape.
        seed (int): other images for each. Default: 0.

    Returns:
        Tensor[batch, channels, height, width]
    """
    generator = torch.Generator().manual_seed(seed)
    contrast = .5 + torch.rand(batch, 1, 1, 1, generator=generator)
    brightness = torch.randn(batch, channels, 1, 1, generator=generator)
    return contrast * torch.randn(batch, channels, height, width, generator=generator) + brightness


def settle_norms(network: nn.Module, images: Tensor) -> int:
    """Give all batch norms the statistics of a batch of images, in place; what they had is lost.

    Without statistics a fresh network in eval mode vanishes, so that its outputs are constant, or explodes. Attentions
    come out calm, see :data:`CALM`: they depend on the image, but not on its last digits.

    Args:
        network (Module): in eval mode; takes the images.
        images (Tensor[batch, channels, height, width]): at least two, best such as follow: DCD's residuals grow with
            the square of what a layer gets, so that in a deep network images with other averages overflow.

    Returns:
        int: how many norms there are.
    """
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    in_attentions = [norm for norm in norms if isinstance(norm, nn.BatchNorm1d)]
    _count(network, images, norms)
    if in_attentions:
        for norm in in_attentions:
            norm.running_var.mul_(CALM).clamp_(min=LEAST_VARIANCE)
        _count(network, images, [norm for norm in norms if norm not in in_attentions])
    return len(norms)


def _count(network: nn.Module, images: Tensor, norms: list[_BatchNorm]) -> None:
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # the mean of all batches, of which this is the first
    try:
        with torch.no_grad():
            network(images)
    finally:
        for norm, (momentum, training) in zip(norms, before):
            norm.momentum, norm.training = momentum, training

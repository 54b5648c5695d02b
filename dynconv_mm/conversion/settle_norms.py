"""Statistics and attentions for a network that has learned nothing, so that what it puts out depends on its input."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import Involution2d
from ..layers.dcdc import GSI

# How far attentions are from those that are the same for all inputs, of where they were. Fresh ones answer to small
# differences with large ones, so that a deep network of them magnifies rounding as much as it does its input.
CALM = .001


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

    Without statistics a fresh network in eval mode vanishes, so that its outputs are constant, or explodes.

    Args:
        network (Module): in eval mode; takes the images.
        images (Tensor[batch, channels, height, width]): at least two, best such as follow: DCD's residuals grow with
            the square of what a layer gets, so that in a deep network images with other averages overflow.

    Returns:
        int: how many norms there are.
    """
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
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
    return len(norms)


@torch.no_grad()
def calm_attentions(network: nn.Module) -> None:
    """Bring the attentions of a fresh network near to those that are the same for all inputs, see :data:`CALM`, and
    the kernels of RedNet and DCDC near to random ones that are the same for all: they depend on the image then, but
    not on its last digits.

    Args:
        network (Module): changed in place.
    """
    calmed: set[nn.Module] = set()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if hasattr(module, 'neutralize_attention') and module not in calmed:
            calmed.update(module.modules())
            before = {name: parameter.clone() for name, parameter in module.named_parameters()}
            module.neutralize_attention()
            for name, parameter in module.named_parameters():
                parameter.lerp_(before[name], CALM)
        elif isinstance(module, (Involution2d, GSI)) and module.attention_modules():
            last = module.attention_modules()[-1]  # which puts out kernels, without a norm
            last = getattr(last, 'conv', last)
            last.bias += last.weight.flatten(1).norm(dim=1) * torch.randn(len(last.bias), generator=generator)
            last.weight *= CALM

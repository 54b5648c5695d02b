"""Where a classifier looks (Grad-CAM, Selvaraju et al., ICCV 2017), by captum."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..eval_mode import eval_mode


class Cam(NamedTuple):
    """Of a batch of images."""

    maps: Tensor  # [batch, height, width] of the images, from 0 to 1, the largest of each image 1 where one is positive
    labels: Tensor  # [batch], the classes explained
    probabilities: Tensor  # [batch], theirs


def grad_cam(model: nn.Module, inputs: Tensor, labels: Tensor | None = None, layer: str = 'backbone') -> Cam:
    """Grad-CAM of mmpretrain's classifiers.

    Args:
        model (nn.Module): an ``ImageClassifier``. It runs in eval mode, and stays as it is.
        inputs (Tensor[batch, channels, height, width]): images as its data preprocessor puts them out.
        labels (Tensor[batch], optional): the classes to explain. Default: those predicted.
        layer (str): name of the module whose output is explained; of several maps the last. Default: 'backbone'.

    Raises:
        ImportError: captum is not installed.
        ValueError: the model has no such layer, or the layer puts out no maps.
    """
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ModuleNotFoundError as error:
        raise ImportError('Grad-CAM is computed by captum, which is not installed: `pip install captum`') from error
    modules = dict(model.named_modules())
    if not layer or layer not in modules:
        raise ValueError(f'layer must be the name of a module of the {type(model).__name__}, such as '
                         f"'backbone', but is {layer!r}")

    def logits(images: Tensor) -> Tensor:
        return model(images, mode='tensor')

    with eval_mode(model):
        with torch.no_grad():
            probabilities = logits(inputs).softmax(1)
        if labels is None:
            labels = probabilities.argmax(1)
        # gradients reach a frozen layer too if its input has one
        maps = LayerGradCam(logits, modules[layer]).attribute(inputs.detach().requires_grad_(), target=labels,
                                                              relu_attributions=True)
    maps = maps[-1] if isinstance(maps, tuple) else maps
    if maps.dim() != 4:
        raise ValueError(f'layer must put out maps, Tensor[batch, channels, height, width], but {layer!r} does not')
    maps = LayerAttribution.interpolate(maps, inputs.shape[-2:], 'bilinear')[:, 0].detach()
    highest = maps.amax((1, 2), keepdim=True)
    maps = torch.where(highest > 0, maps / highest, torch.zeros_like(maps))
    return Cam(maps, labels, probabilities.gather(1, labels[:, None])[:, 0])

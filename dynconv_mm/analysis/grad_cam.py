"""Where a classifier looks: Grad-CAM (Selvaraju et al., ICCV 2017) and Grad-CAM++ (Chattopadhyay et al., WACV 2018)."""
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


def mean_gradients(gradients: Tensor, features: Tensor) -> Tensor:
    """The weights of Grad-CAM (Eq. 1), Tensor[batch, channels, 1, 1], of gradients and features of that size but height
    and width."""
    return gradients.mean((2, 3), keepdim=True)


def positive_gradients(gradients: Tensor, features: Tensor) -> Tensor:
    """The weights of Grad-CAM++, Σ_ij α_ij relu(g_ij) with α_ij = g_ij² / (2 g_ij² + Σ_ab A_ab g_ij³), but for the
    factor exp(S) that all of an image have in common; of the shapes of :func:`mean_gradients`."""
    gradients = gradients.relu()
    # both parts divided by g_ij²
    return (gradients / (2 + features.sum((2, 3), keepdim=True) * gradients)).sum((2, 3), keepdim=True)


#: by name, as it is written, and what weights channels
METHODS = {'grad-cam': ('Grad-CAM', mean_gradients), 'grad-cam++': ('Grad-CAM++', positive_gradients)}


def grad_cam(model: nn.Module, inputs: Tensor, labels: Tensor | None = None, layer: str = 'backbone',
             method: str = 'grad-cam') -> Cam:
    """Grad-CAM or Grad-CAM++ of mmpretrain's classifiers, by captum.

    Args:
        model (nn.Module): an ``ImageClassifier``. It runs in eval mode, and stays as it is.
        inputs (Tensor[batch, channels, height, width]): images as its data preprocessor puts them out.
        labels (Tensor[batch], optional): the classes to explain. Default: those predicted.
        layer (str): name of the module whose output is explained; of several maps the last. Default: 'backbone'.
        method (str): 'grad-cam' or 'grad-cam++', which weights a channel by its positive gradients alone, each by how
            much it adds to the score, whose exponential is explained (its Eq. 5). Default: 'grad-cam'.

    Raises:
        ImportError: captum is not installed.
        ValueError: ``method`` is none of these; the model has no such layer, or the layer puts out no maps.
    """
    try:
        from captum.attr import LayerActivation, LayerAttribution, LayerGradientXActivation
    except ModuleNotFoundError as error:
        raise ImportError('Grad-CAM is computed by captum, which is not installed: `pip install captum`') from error
    if method not in METHODS:
        raise ValueError(f'method must be one of {tuple(METHODS)}, but is {method!r}')
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
        gradients = LayerGradientXActivation(logits, modules[layer], multiply_by_inputs=False).attribute(
            inputs.detach().requires_grad_(), target=labels)
        with torch.no_grad():
            features = LayerActivation(logits, modules[layer]).attribute(inputs)
    gradients, features = (maps[-1] if isinstance(maps, tuple) else maps for maps in (gradients, features))
    if features.dim() != 4:
        raise ValueError(f'layer must put out maps, Tensor[batch, channels, height, width], but {layer!r} does not')
    weights = METHODS[method][1](gradients.detach(), features.detach())
    maps = (weights * features.detach()).sum(1, keepdim=True).relu()
    maps = LayerAttribution.interpolate(maps, inputs.shape[-2:], 'bilinear')[:, 0]
    highest = maps.amax((1, 2), keepdim=True)
    maps = torch.where(highest > 0, maps / highest, torch.zeros_like(maps))
    return Cam(maps, labels, probabilities.gather(1, labels[:, None])[:, 0])

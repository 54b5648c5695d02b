"""Attentions that average over each image's own area, and not over all that its batch is padded to."""
from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional.attention import adaptive_avg_pool2d
from ..functional.operator import is_recorded
from ..layers.average_pool import PoolsFeatures
from .warehoused import module_config

OF_WHOLE_IMAGES = {'semantic_head', 'glbctx_head'}
"""What works on maps of whole images in mmdet's ``roi_head``, whose other parts work on regions."""


def own_length(image: int, padded: int, length: int) -> int:
    """How many rows, or columns, of a map an image fills: those that the map of the image alone has.

    Networks halve sizes by convolutions that round up. Where that does not give the map's size, rows in which a part of
    the image lies count.

    Args:
        image (int): rows of the image, in pixels.
        padded (int): rows of its batch.
        length (int): rows of the map of the batch.
    """
    stride = 1 << (-(-padded // length) - 1).bit_length()  # the least power of 2 that makes the map no larger
    return -(-image // stride) if -(-padded // stride) == length else -(-image * length // padded)


class OwnAreas:
    """The sizes of the images of the batch that a model works on; its methods are hooks of the model and of what pools.

    What gradient checkpointing computes again in the backward pass sees the sizes of the forward pass before it.
    """

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] | None = None  # height and width; None where all images fill the batch
        self.padded = 0, 0
        self.is_running = False

    def enter(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Before the model's forward: note the sizes of the images, of which ``data_samples`` tell."""
        self.sizes, self.is_running = None, True
        inputs, data_samples = (kwargs.get(name, args[index] if index < len(args) else None)
                                for index, name in enumerate(('inputs', 'data_samples')))
        if data_samples is None:
            return
        if not isinstance(inputs, Tensor) or inputs.dim() != 4:
            raise ValueError(f'inputs of {type(model).__name__} must be one batch, Tensor[batch, channels, height, '
                             'width], for attentions over own areas, but are '
                             f'{list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__}: build it '
                             'without OwnAreaAveraged')
        sizes = [_image_size(sample) for sample in data_samples]
        self.padded = height, width = tuple(inputs.shape[2:])
        if len(sizes) != len(inputs) or any(h > height or w > width for h, w in sizes):
            raise ValueError(f'data_samples must tell the img_shape of each of {len(inputs)} images, no larger than '
                             f'{self.padded}, to which they are padded, but it is {sizes}')
        if any(size != self.padded for size in sizes):
            self.sizes = sizes

    def leave(self, *_: Any) -> None:
        """Behind the model's forward: its parts by themselves, called for other features, pool whole maps."""
        self.is_running = False
        if not torch.is_grad_enabled():
            self.sizes = None

    def pool(self, module: nn.Module, args: tuple) -> tuple | None:
        """Before a module that pools: give it the averages, or maxima, over own areas in place of its features."""
        if self.sizes is None or not (self.is_running or _in_backward()):
            return None
        x, *others = args
        if x.dim() != 4 or len(x) != len(self.sizes):
            raise ValueError(f'{type(module).__name__} got features {list(x.shape)}, which are not the maps of a batch '
                             f'of {len(self.sizes)} images, so that their own areas are not known: build the model '
                             'without OwnAreaAveraged')
        function = F.adaptive_max_pool2d if isinstance(module, nn.AdaptiveMaxPool2d) else adaptive_avg_pool2d
        pooled = []
        for image, size in zip(x.split(1), self.sizes):
            rows, columns = map(own_length, size, self.padded, x.shape[2:])
            pooled.append(function(image[:, :, :rows, :columns], getattr(module, 'pool_size', 1)))
        return torch.cat(pooled), *others


def _image_size(sample: object) -> tuple[int, int]:
    shape = getattr(sample, 'img_shape', None)
    if shape is None:
        raise ValueError(f'data_samples must have an img_shape, but a {type(sample).__name__} has none: name it among '
                         'the meta_keys of what packs the inputs in the pipeline')
    return tuple(int(length) for length in shape[:2])


def _in_backward() -> bool:
    """Whether autograd runs a backward pass in this thread."""
    return not is_recorded() and torch._C._current_graph_task_id() != -1


def pooling_modules(model: nn.Module) -> list[nn.Module]:
    """Those of a model that average maps of whole images to one vector, or find maxima, and the attentions of this
    package that average to more pixels."""

    def pools(module: nn.Module) -> bool:
        if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            return module.output_size in (1, (1, 1)) and not getattr(module, 'return_indices', False)
        return isinstance(module, PoolsFeatures)

    def sees_images(parts: Sequence[str]) -> bool:
        return 'roi_head' not in parts or not OF_WHOLE_IMAGES.isdisjoint(parts)

    return [module for name, module in model.named_modules() if pools(module) and sees_images(name.split('.'))]


def average_own_areas(model: nn.Module) -> int:
    """Let the attentions of a model average over each image's own area, not over what its batch is padded to.

    What a dynamic convolution computes of an image then does not depend on the sizes of the others in its batch, but
    for what any convolution sees of the padding at the image's edge. It is not for published weights, which were
    trained and tested with averages over the whole; train and test with the same.

    It holds for all modules of this package that average their features, and for any
    ``torch.nn.AdaptiveAvgPool2d(1)`` and ``AdaptiveMaxPool2d(1)``, as in squeeze and excitation, but for those in an
    ``roi_head`` that see regions; a module that is built later is not reached. Images lie at the top left, as data
    preprocessors put them. Where all fill the batch, nothing is done; nor where ``data_samples`` are not given, or a
    part of the model is called by itself.

    Args:
        model (Module): a whole model of a toolbox of OpenMMLab, whose ``forward`` takes ``inputs``,
            Tensor[batch, channels, height, width], and ``data_samples`` with an ``img_shape``.

    Returns:
        int: how many modules average so.

    Raises:
        ValueError: its forward takes no data samples, or it has no module that pools. Later, in a call: inputs are no
            single batch, data samples have no ``img_shape``, or the features of a module that pools are not of the
            batch's images.

    Example:
        >>> inferencer = DetInferencer('faster-rcnn_odconv4x-r50_fpn_1x_coco.py', 'epoch_12.pth')  # doctest: +SKIP
        >>> number = average_own_areas(inferencer.model)  # doctest: +SKIP
    """
    if 'data_samples' not in inspect.signature(model.forward).parameters:
        raise ValueError(f'model must be a whole one, whose forward takes data_samples, from which the sizes of images '
                         f'are known, but is a {type(model).__name__}')
    modules = pooling_modules(model)
    if not modules:
        raise ValueError(f'model, a {type(model).__name__}, has no attention that averages its features')
    areas = OwnAreas()
    model.register_forward_pre_hook(areas.enter, with_kwargs=True)
    model.register_forward_hook(areas.leave, always_call=True)
    for module in modules:
        module.register_forward_pre_hook(areas.pool)
    return len(modules)


@MODELS.register_module()
def OwnAreaAveraged(module: str | dict, **kwargs: Any) -> nn.Module:
    """Any whole model of a config, whose attentions average over each image's own area, by :func:`average_own_areas`.

    What it returns is that model itself, with its class, attributes and names in the state dict. In an inherited config
    it takes two keys, and the others stay:

    .. code-block:: python

        model = dict(type='OwnAreaAveraged', module='FasterRCNN')

    Args:
        module (str | dict): registry name of the model, or its config.
        **kwargs: arguments of the model.

    Returns:
        Module: the model.

    Raises:
        ValueError: ``module`` is neither; and as :func:`average_own_areas`.
    """
    model = MODELS.build(module_config(module, kwargs))
    print_log(f'OwnAreaAveraged {type(model).__name__}: {average_own_areas(model)} modules average over own areas',
              'current')
    return model

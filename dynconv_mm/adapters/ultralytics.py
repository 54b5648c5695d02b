"""Ultralytics' YOLO with dynamic convolutions: trained, validated, used and exported.

``YOLO.train`` builds the model anew from its yaml, so that to make one's own dynamic beforehand has no effect. Before
it validates, predicts and exports, it folds batch norms into the weights of convolutions, which is for static kernels:
importing this module, as a checkpoint of such a model does, makes that right for the layers of this package.
"""
from __future__ import annotations

import sys
from functools import wraps
from typing import Any

from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import torch_utils

from ..conversion.dynamicize import dynamicize
from ..layers.conv_arguments import ConvArguments


class MadeDynamic:
    """Kept by a model that a trainer made dynamic, so that who loads its checkpoint imports this module.

    Args:
        arguments (dict): of :func:`dynamicize`.
    """

    def __init__(self, arguments: dict) -> None:
        self.arguments = arguments


def dynamic_trainer(trainer: type[BaseTrainer] = DetectionTrainer, **arguments: Any) -> type[BaseTrainer]:
    """A trainer of models whose convolutions are dynamic, for ``YOLO.train(trainer=…)``.

    The model starts with the function of the static one, pre-trained weights included, or goes on with the weights of
    a dynamic one. What :func:`dynamicize` replaced is logged. For a training in several processes, which import the
    trainer by its name, assign it under that name in a module: ``Trainer = dynamic_trainer(); Trainer.__module__ =
    'my_module'; Trainer.__qualname__ = Trainer.__name__ = 'Trainer'``.

    Args:
        trainer (type): that of the task. Default: ``DetectionTrainer``.
        **arguments: of :func:`dynamicize`.

    Returns:
        type: a class that derives from ``trainer``.

    Raises:
        ValueError: as of :func:`dynamicize`, when the training starts.

    Example:
        >>> from ultralytics import YOLO  # doctest: +SKIP
        >>> yolo = YOLO('yolov8n.yaml')
        >>> yolo.train(data='coco8.yaml', trainer=dynamic_trainer(op=dict(type='ODConv2d', kernel_num=4)))
    """

    class DynamicTrainer(trainer):
        """As its base, with a dynamic model."""

        def get_model(self, cfg: str | dict | None = None, weights: nn.Module | None = None,
                      verbose: bool = True) -> nn.Module:
            """Build the model, make it dynamic, and load weights, which may be a dynamic model's."""
            model = super().get_model(cfg, weights, verbose)
            report = dynamicize(model, **arguments)
            torch_utils.LOGGER.info(f'{len(report.replaced)} convolutions are dynamic, {len(report.kept)} are not')
            if weights is not None:
                model.load(weights)
            model.made_dynamic = MadeDynamic(arguments)
            return model

    return DynamicTrainer


def install_fuse_conv_and_bn() -> None:
    """Put a function that knows layers of this package in the place of ultralytics', under its name in all modules."""
    original = torch_utils.fuse_conv_and_bn
    if hasattr(original, '__wrapped__'):
        return

    @wraps(original)
    def fuse_conv_and_bn(conv: nn.Module, bn: nn.Module) -> nn.Module:
        if not isinstance(conv, ConvArguments):
            return original(conv, bn)
        fused = conv if conv.fuse_batch_norm(bn) else nn.Sequential(conv, bn)
        return fused.requires_grad_(False)

    for module in list(sys.modules.values()):
        if getattr(module, '__dict__', {}).get('fuse_conv_and_bn') is original:
            module.fuse_conv_and_bn = fuse_conv_and_bn


install_fuse_conv_and_bn()

"""Models of configs whose layers share warehouses of cells."""
from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from ..layers.kernel_warehouse import build_warehouses


def module_config(module: str | dict, arguments: dict) -> dict:
    """The config of a model that is given by its registry name, or by a config, and arguments beside it.

    Raises:
        ValueError: ``module`` is neither.
    """
    cfg = dict(type=module) if isinstance(module, str) else module
    if not isinstance(cfg, dict) or 'type' not in {**cfg, **arguments}:
        raise ValueError(f"module must be a model's registry name, or its config with a type, but is {module!r}")
    return {**cfg, **arguments}


@MODELS.register_module()
def Warehoused(module: str | dict, **kwargs: Any) -> nn.Module:
    """Any model, neck or head of a config, and the warehouses that its convolutions name.

    What it returns is that model itself, with its class and attributes; its cells are parameters of a
    ``warehouse_manager`` in it. In an inherited config it takes two keys, and the others stay:

    .. code-block:: python

        model = dict(neck=dict(type='Warehoused', module='FPN', conv_cfg=dict(type='KWConv2d', warehouse='fpn')))

    Args:
        module (str | dict): registry name of the model, or its config.
        **kwargs: arguments of the model.

    Returns:
        Module: the model.

    Raises:
        ValueError: ``module`` is neither; and as :func:`~dynconv_mm.build_warehouses`.
    """
    model = MODELS.build(module_config(module, kwargs))
    print_log(f'Warehoused {type(model).__name__}: {build_warehouses(model)}', 'current')
    return model

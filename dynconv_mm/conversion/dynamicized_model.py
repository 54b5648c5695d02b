"""Models of configs whose convolutions are dynamic, and start from static weights."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import MODELS
from torch import nn

from ..layers.conv_arguments import check_module_cfg
from ..models.warehoused import module_config
from .dynamicize import Pattern, Swap, apply_swaps, place, plan_swaps, seeded_init_from_static


class StaticInitialization:
    """In place of a dynamicized model's ``init_weights``: initialises the static model, then carries that over.

    So the model starts from what its ``init_cfg`` and ``init_weights`` make of the static convolutions, pre-trained
    weights included. Parameters stay the same objects, as an optimizer may hold them already.

    Args:
        model (Module): the dynamicized model.
        swaps (list[Swap]): what was replaced in it.
        keep_function (bool): whether to carry over; else the dynamic layers stay as they are.
        noise (float): see :func:`init_from_static`.
    """

    def __init__(self, model: nn.Module, swaps: list[Swap], keep_function: bool, noise: float) -> None:
        self.model = model
        # Modules in a plain list are no submodules. The dynamic ones are looked up by name, in a copy its own ones.
        self.statics = [(swap.names, swap.static) for swap in swaps]
        self.keep_function = keep_function
        self.noise = noise

    def __call__(self, *args, **kwargs) -> None:
        model, statics = self.model, self.statics
        dynamics = [model.get_submodule(names[0]) for names, _ in statics]
        # A whole that is being initialised notes its parameters, and refuses others: the static part notes its own.
        notes = [(module, vars(module).pop('_params_init_info')) for module in model.modules()
                 if '_params_init_info' in vars(module)]
        try:
            for (names, static), dynamic in zip(statics, dynamics):
                place(model, names, static.to(next(dynamic.parameters()).device))
            type(model).init_weights(model, *args, **kwargs)
        finally:
            for (names, _), dynamic in zip(statics, dynamics):
                place(model, names, dynamic)
            for module, note in notes:
                module._params_init_info = note
        if self.keep_function:
            for (names, static), dynamic in zip(statics, dynamics):
                seeded_init_from_static(static, dynamic, self.noise, names[0])
        if notes:
            update_init_info(model, init_info='Initialized as a static model, whose weights were carried over')
        self.statics = []  # they have served


@MODELS.register_module()
def Dynamicized(module: str | dict,
                op: dict = dict(type='ODConv2d', kernel_num=4),
                include: Pattern | Sequence[Pattern] | None = None,
                exclude: Pattern | Sequence[Pattern] | None = None,
                placement: str = 'all',
                keep_function: bool = True,
                noise: float = 0.1,
                **kwargs: Any) -> nn.Module:
    """Any model, backbone, neck or head of a config, its convolutions made dynamic by :func:`dynamicize`.

    What it returns is that model itself, with its class, attributes and names in the state dict: a checkpoint of it is
    tested, resumed and exported with the same config. Its ``init_weights`` initialises the static model, from
    pre-trained weights if its ``init_cfg`` says so, and carries the result over; and a static checkpoint named by
    ``load_from`` is carried over when it is loaded.

    In an inherited config it takes two keys, and the others stay:

    .. code-block:: python

        model = dict(backbone=dict(type='Dynamicized', module='CSPDarknet', op=dict(type='ODConv2d', kernel_num=4)))

    Args:
        module (str | dict): registry name of the model, or its config.
        op, include, exclude, placement, keep_function, noise: as of :func:`dynamicize`.
        **kwargs: arguments of the model.

    Returns:
        Module: the model.

    Raises:
        ValueError: ``module`` is neither; and as :func:`dynamicize`.
    """
    cfg = module_config(module, kwargs)
    if '_scope_' not in cfg:
        check_module_cfg('module', cfg, "dict(type='StaticResNet', depth=18)")
    model = MODELS.build(cfg)
    swaps, kept = plan_swaps(model, op, include, exclude, placement, keep_function, noise)
    report = apply_swaps(model, swaps, kept)
    print_log(f'Dynamicized {type(model).__name__}:\n{report}', 'current')
    if hasattr(model, 'init_weights'):
        model.init_weights = StaticInitialization(model, swaps, keep_function, noise)
    return model

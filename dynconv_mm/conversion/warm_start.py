"""A dynamic network that starts as the static one whose weights it is given."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..eval_mode import eval_mode
from ..layers import TemperatureMixin
from ..layers.condconv import CondConvRouting
from ..layers.kernel_warehouse import WarehouseLayer
from ..models.backbones.base import StagedBackbone
from .checkpoint_file import CheckpointError, check_fit
from .init_from_static import init_from_static
from .static_counterpart import dynamic_layers, layers_without_static, static_counterpart
from .static_names import openmmlab_names


class WarmStart(NamedTuple):
    """What was carried from a static checkpoint to a dynamic model."""

    naming: str  # whose names the checkpoint has, in words
    static: nn.Module  # the static counterpart, with the weights carried
    carried: list[str]  # parts of the model: 'backbone', 'neck', …
    left: dict[str, str]  # parts of the model that were not carried, and why
    unused: list[str]  # names in the checkpoint that nothing was made of
    impossible: dict[str, nn.Module]  # layers that cannot start as static ones, by name
    fresh: list[str]  # where there are such layers: names of the static network that the checkpoint could not fill


def warm_start(model: nn.Module, state_dict: Mapping[str, Tensor], parts: Sequence[str] | None = None,
               noise: float = 0.) -> WarmStart:
    """Give a dynamic model the weights of a static one, so that it computes the same function.

    The backbone must fit in every name and shape. A part behind it (neck, heads) is carried if the checkpoint has one
    of the same name, which must fit too; only a classifier of another number of classes is left out.

    A model with ``Involution2d`` or ``DCDC2d``, or ``KWConv2d`` of a ``cell_num_ratio`` below 1, cannot start as a
    static one: it gets what has the same name and shape,
    and everything else stays as it is.

    Args:
        model (Module): with a child ``backbone``, such as a classifier or a detector; changed in place.
        state_dict (Mapping[str, Tensor]): of a static network, see :func:`~.static_names.openmmlab_names`.
        parts (Sequence[str], optional): children of the model to carry. Default: all that the checkpoint has.
        noise (float): by which kernels of a layer differ, see :func:`init_from_static`. Default: 0.

    Returns:
        WarmStart: what was carried, and the static network itself.

    Raises:
        CheckpointError: the weights do not fit; the model is as it was.
        ValueError: the model has no backbone or no dynamic layer, or ``parts`` are not its own.
    """
    layers, impossible = dynamic_layers(model), layers_without_static(model)
    children = [name for name, child in model.named_children() if child.state_dict()]
    if 'backbone' not in children or not (layers or impossible):
        raise ValueError('model must have a backbone and a dynamic layer')
    unknown = set(parts or ()) - set(children)
    if unknown:
        raise ValueError(f'parts must be out of {children}, but {", ".join(sorted(unknown))} is not')
    naming, weights = openmmlab_names(state_dict)
    static = static_counterpart(model)
    expected = static.state_dict()
    left, values = {}, {}
    for part in children:
        wanted, given = _within(expected, part), _within(weights, part)
        why = _why_left(part, wanted, given, parts)
        if why:
            left[part] = why
        elif impossible:
            values.update((name, value) for name, value in given.items()
                          if name in wanted and value.shape == wanted[name].shape)
        else:
            values.update(_fitting(part, wanted, given))
    if not values:
        raise CheckpointError('the checkpoint has nothing in common with this model')
    _fill(static, values)
    _fill(model, {name: value for name, value in values.items() if not _is_in(name, layers)})
    static_layers = dict(static.named_modules())
    for name, layer in layers.items():
        source = static_layers[name]
        source, prefix = (source.fc, f'{name}.fc') if hasattr(source, 'fc') else (source, name)  # a classifier head
        if f'{prefix}.weight' in values:
            init_from_static(source, layer, noise)
    carried = [part for part in children if part not in left]
    for part in carried:
        for module in getattr(model, part).modules():
            if isinstance(module, CondConvRouting):
                module.neutralize_attention()
            elif isinstance(module, StagedBackbone):
                module.expects_weights = False
    return WarmStart(naming, static, carried, left, [name for name in weights if name not in values], impossible,
                     [name for part in carried for name in _within(expected, part) if name not in values])


def _why_left(part: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor],
              parts: Sequence[str] | None) -> str | None:
    """Why a part is not to be carried; None if it is."""
    if parts is not None and part not in parts:
        return 'it was not asked for'
    if not given and part != 'backbone':
        return 'the checkpoint has none'
    ours, theirs = (names.get(f'{part}.fc.weight') for names in (wanted, given))
    if part == 'head' and ours is not None and theirs is not None and ours.shape[1:] == theirs.shape[1:] \
            and len(ours) != len(theirs):
        return f'it has {len(ours)} classes, and that of the checkpoint {len(theirs)}'
    return None


def _fitting(part: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a part, which must be all of it."""
    counts = {name: torch.zeros_like(value) for name, value in wanted.items()
              if name.endswith('num_batches_tracked')}  # which checkpoints before torch 0.4.1 lack
    given = {**counts, **given}
    try:
        check_fit(given, wanted, f"the static {part} of the model's kind")
    except CheckpointError as error:
        remedy = 'use weights of this very architecture' if part == 'backbone' else \
            'carry only what fits, such as `parts=[\'backbone\']` (`--parts backbone`)'
        raise CheckpointError(f'{error}\n{remedy}') from error
    return given


@torch.no_grad()
def _fill(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy tensors to parameters and buffers of these names; backbones refuse to load a part of themselves."""
    own = model.state_dict()
    for name, value in values.items():
        own[name].copy_(value)


def _within(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name.startswith(f'{part}.')}


def _is_in(name: str, layers: Iterable[str]) -> bool:
    return any(name.startswith(f'{layer}.') for layer in layers)


@torch.no_grad()
def max_difference(static: nn.Module, dynamic: nn.Module, image: Tensor, with_head: bool,
                   temperatures: Iterable[float] = (1., 30.)) -> float:
    """How far the outputs of two models are apart in eval mode, relative to the largest value of each.

    Compared are the backbone's maps, what :meth:`extract_feat` makes of them (with the neck) and, if asked, a
    classifier's logits, at several temperatures of the attentions. Modes and temperatures are as before afterwards.

    Args:
        static, dynamic (Module): two models with a ``backbone``.
        image (Tensor[batch, channels, height, width]): their input.
        with_head (bool): whether to compare the logits too, of classifiers.
        temperatures (Iterable[float]): of the dynamic model, but for KernelWarehouse's. Default: 1 and 30.
    """
    differences = []
    with eval_mode(static, dynamic), _own_temperatures(dynamic) as tempered:
        expected = list(_outputs(static, image, with_head))
        for temperature in temperatures:
            for module in tempered:
                module.set_temperature(temperature)
            for theirs, ours in zip(expected, _outputs(dynamic, image, with_head), strict=True):
                differences.append((theirs - ours).abs().max() / theirs.abs().max().clamp(min=1e-30))
    return torch.stack(differences).max().item()  # NaN if one is


@contextmanager
def _own_temperatures(model: nn.Module) -> Iterator[list[TemperatureMixin]]:
    """The layers that have a temperature by which logits are divided, which within the block may be set, and afterwards
    is what it was; KernelWarehouse's is another quantity."""
    temperatures = {module: module.temperature.clone() for module in model.modules()
                    if isinstance(module, TemperatureMixin) and not isinstance(module, WarehouseLayer)}
    try:
        yield list(temperatures)
    finally:
        for module, temperature in temperatures.items():
            module.temperature.copy_(temperature)


def _outputs(model: nn.Module, image: Tensor, with_head: bool) -> Iterator[Tensor]:
    yield from _tensors(model.backbone(image))
    if hasattr(model, 'extract_feat'):
        yield from _tensors(model.extract_feat(image))
    if with_head:
        yield from _tensors(model(image, mode='tensor'))


def _tensors(outputs: Tensor | Sequence) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for output in outputs:
            yield from _tensors(output)

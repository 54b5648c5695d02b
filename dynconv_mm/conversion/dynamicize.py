"""The convolutions of any model made dynamic, in place."""
from __future__ import annotations

import difflib
import inspect
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, NamedTuple, Union

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..compat.close_names import did_you_mean
from ..compat.openmmlab import Conv2dAdaptivePadding, MMCVConv2d
from ..layers import (
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DDFConv2d,
    DyConv2d,
    FDConv2d,
    Involution2d,
    KWConv2d,
    LocalRelation2d,
    LSConv2d,
    ODConv2d,
    PairwiseSelfAttention2d,
    StandAloneSelfAttention2d,
    WEConv2d,
    WeightNetConv2d,
)
from ..layers.conv_arguments import ConvArguments, check_bool
from ..layers.kernel_warehouse import KernelWarehouse, WarehouseLayer
from ..layers.placement import Placement, parse_placement
from .init_from_static import check_noise, init_from_static

if TYPE_CHECKING:
    from rich.console import Group

# without a static kernel, and but for pairwise self-attention C to C
SIZE_KEEPING = (Involution2d, DCDC2d, DDFConv2d, PairwiseSelfAttention2d, LocalRelation2d, StandAloneSelfAttention2d,
                LSConv2d)
OPS = {op.__name__: op for op in (ODConv2d, DyConv2d, CondConv2d, DCDConv2d, *SIZE_KEEPING, CGConv2d, WeightNetConv2d,
                                  WEConv2d, FDConv2d, KWConv2d)}
STATIC_ARGUMENTS = ('in_channels', 'out_channels', 'stride', 'padding', 'dilation', 'groups', 'bias', 'padding_mode',
                    'device', 'dtype')  # of an op, taken from the convolution whose place it takes
PLAIN_FORWARDS = (nn.Conv2d.forward, MMCVConv2d.forward)
HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks', '_state_dict_hooks',
         '_load_state_dict_pre_hooks', '_load_state_dict_post_hooks')
STEM_CHANNELS = 3  # a convolution of so few input channels, or fewer, sees the image
BLOCK = re.compile('Block|Bottleneck|Residual')  # names of the classes of residual blocks
# Methods that need no argument and may merge the convolutions of a block; what those call that only hand that on to
# modules within; and modules whose forward reads a weight, or that have set one to numbers which are not learned.
MERGERS = ('switch_to_deploy', 'merge_kernel', 'reparameterize', 'fuse', 'fuse_convs')
WALKS = {'modules', 'named_modules', 'children', 'named_children'}
WEIGHT_READERS = ('TaskDecomposition', 'DFL')  # of mmdet's TOODHead; of ultralytics' heads

Pattern = Union[str, re.Pattern]


class Replacement(NamedTuple):
    """One convolution that is dynamic now."""

    names: tuple[str, ...]  # more than one where the module stands in several places
    static: str
    dynamic: str
    params_before: int
    params_after: int


@dataclass(frozen=True)
class DynamicizeReport:
    """What :func:`dynamicize` did; ``print(report)`` shows it as tables.

    Attributes:
        replaced (tuple[Replacement, ...]): the convolutions that are dynamic now, in the model's order.
        kept (dict[str, str]): names of the others, with the reason.
        params_before, params_after (int): parameters of the whole model.
        warehouses (dict[str, tuple[int, ...]]): of a ``KWConv2d``, by name the shape of the cells that layers share:
            their number, output and input channels, 1, 1. They are counted in the whole model alone.
    """

    replaced: tuple[Replacement, ...]
    kept: dict[str, str]
    params_before: int
    params_after: int
    warehouses: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        replaced = Table(title=f'{len(self.replaced)} convolution{"s" * (len(self.replaced) != 1)} replaced',
                         title_justify='left')
        for column in ('convolution', 'dynamic layer'):
            replaced.add_column(column, overflow='fold')
        for column in ('Params before', 'after'):
            replaced.add_column(column, justify='right')
        for row in self.replaced:
            replaced.add_row(Text(' = '.join(row.names)), Text(row.dynamic), f'{row.params_before:,}',
                             f'{row.params_after:,}')
        kept = Table(title=f'{len(self.kept)} kept', title_justify='left')
        for column in ('reason', 'convolutions'):
            kept.add_column(column, overflow='fold')
        for reason, names in _by_reason(self.kept).items():
            kept.add_row(Text(reason), Text(', '.join(names)))
        warehouses = Table(title=f'{len(self.warehouses)} warehouses', title_justify='left')
        warehouses.add_column('warehouse', overflow='fold')
        for column in ('cells', 'size of a cell', 'Params'):
            warehouses.add_column(column, justify='right')
        for name, (number, *size) in self.warehouses.items():
            warehouses.add_row(Text(name), f'{number:,}', f'{size[0]} × {size[1]}',
                               f'{number * math.prod(size):,}')
        total = Text(f'Params of the model: {self.params_before:,} before, {self.params_after:,} after '
                     f'({self.params_after / self.params_before:.2f} times)')
        return Group(replaced, *([warehouses] if self.warehouses else []), *([kept] if self.kept else []), total)

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console
        text = StringIO()
        Console(file=text, width=120).print(self)
        return '\n'.join(line.rstrip() for line in text.getvalue().splitlines())


class Swap(NamedTuple):
    """A static convolution and the dynamic one that is to take its place."""

    names: tuple[str, ...]
    static: nn.Conv2d
    dynamic: ConvArguments


def dynamicize(model: nn.Module,
               op: dict = dict(type='ODConv2d', kernel_num=4),
               include: Pattern | Sequence[Pattern] | None = None,
               exclude: Pattern | Sequence[Pattern] | None = None,
               placement: str = 'all',
               keep_function: bool = True,
               noise: float = 0.1) -> DynamicizeReport:
    """Replace the convolutions of any torch model by dynamic ones, in place.

    It takes every ``nn.Conv2d`` whose forward is that of its class, torch's or mmcv's, but the first one of the model,
    which sees the image (at most 3 input channels), as the papers do. It keeps and reports those that are transposed,
    deformable or dynamic already, compute in a way of their own, are parametrised, have hooks, share their weight
    with another module, or have it read by others. A convolution that stands in several places is replaced by one
    layer in all of them. Device, dtype, memory format, mode and ``requires_grad`` are taken over; an optimizer
    that holds the old parameters must be built anew.

    A pattern is a glob over a convolution's name in ``model.named_modules()``, where ``*`` matches dots too, or a
    compiled regular expression, which is searched for in it. A glob that matches the name of a module selects all
    convolutions within: 'backbone' is 'backbone.*'. A pattern of ``include`` that selects nothing but convolutions
    which see the image selects them in fact.

    Args:
        model (Module): any model; it may not be a convolution itself.
        op (dict): ``type``, one of :data:`OPS` by name or class, and its own arguments. Those of the convolution
            (channels, stride, padding, …) are the static one's.
        include (str | Pattern | Sequence, optional): patterns of which a convolution must match one. Default: all.
        exclude (str | Pattern | Sequence, optional): patterns of which it may match none. Default: none.
        placement (str): 'all'; '1x1', '3x3' …, a kernel size; 'last_6_blocks' or another number, the last residual
            blocks, which are told by their class names (…Block, …Bottleneck, …Residual…). Default: 'all'.
        keep_function (bool): the model computes the same as before, by :func:`init_from_static`; and a dynamic layer
            loads the static one's weights too. Else the layers start anew, and ``Involution2d``, ``DCDC2d``,
            ``DDFConv2d``, ``LSConv2d``, ``LocalRelation2d`` and ``StandAloneSelfAttention2d``, which map C to C
            channels, take the place of those that do. Default: True.
        noise (float): by how much the n kernels differ at the start, see :func:`init_from_static`. The same in all
            processes of a distributed training. Default: 0.1.

    Returns:
        DynamicizeReport: what was replaced, what was not and why.

    Raises:
        ValueError: an argument is not one of the above; a pattern matches nothing; no convolution can be replaced. The
            model is then as it was.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3))
        >>> report = dynamicize(model, op=dict(type='ODConv2d', kernel_num=2))
        >>> [row.names for row in report.replaced], report.kept
        ([('2',)], {'0': 'sees the image (3 input channels)'})
    """
    check_noise(noise)
    swaps, kept = plan_swaps(model, op, include, exclude, placement, keep_function, noise)
    return apply_swaps(model, swaps, kept)


def plan_swaps(model: nn.Module, op: dict, include: Pattern | Sequence[Pattern] | None,
               exclude: Pattern | Sequence[Pattern] | None, placement: str, keep_function: bool,
               noise: float) -> tuple[list[Swap], dict[str, str]]:
    """What :func:`dynamicize` is to replace, all layers built, and the reasons by the names of what it keeps."""
    if not isinstance(model, nn.Module):
        raise ValueError(f'model must be a torch.nn.Module, but is a {type(model).__name__}')
    check_bool('keep_function', keep_function)
    kind, arguments = _check_op(op, keep_function)
    bounds = parse_placement(placement)
    if kind is KWConv2d and hasattr(model, 'warehouse_manager'):
        raise ValueError(f'model, a {type(model).__name__}, has warehouses already')
    convs = _find_convs(model)
    names = [name for _, places in convs for name in places]
    if '' in names:
        raise ValueError('model is itself a convolution, which cannot be replaced in place: put it into a '
                         'torch.nn.Sequential first')
    if not names:
        raise ValueError(f'model, a {type(model).__name__}, has no convolution')
    included = [_selected('include', pattern, names) for pattern in _patterns('include', include)]
    excluded = set().union(*(_selected('exclude', pattern, names) for pattern in _patterns('exclude', exclude)))
    stems = {name for conv, places in convs for name in places
             if getattr(conv, 'in_channels', STEM_CHANNELS + 1) <= STEM_CHANNELS}
    wanted_stems = set().union(*(selected for selected in included if selected <= stems))
    in_blocks = None if bounds.last_blocks is None else _last_blocks(model, bounds.last_blocks)
    readers = _weight_readers(model)
    holders = _holders(model)

    kept, swaps, groups = {}, [], {}
    for conv, places in convs:
        why = (_unselected(conv, places, set().union(*included) if included else None, excluded, stems - wanted_stems,
                           bounds, in_blocks)
               or _refusal(conv, places, readers, holders))
        if why is None:
            try:
                own = {} if kind is not KWConv2d or arguments.get('warehouse') is not None else \
                    dict(warehouse=_warehouse_name(model, places[0], _as_plain(conv), groups))
                dynamic = _build_dynamic(kind, {**arguments, **own}, conv)
                if kind is not KWConv2d:
                    _take_over(conv, dynamic, places[0], keep_function, noise)
            except ValueError as error:
                why = f'{kind.__name__} does not fit: {error}'
        if why is not None:
            kept.update((name, why) for name in places)
        else:
            swaps.append(Swap(tuple(places), conv, dynamic))
    if kind is KWConv2d and swaps:
        KernelWarehouse([swap.dynamic for swap in swaps])
        for swap in swaps:
            _take_over(swap.static, swap.dynamic, swap.names[0], keep_function, noise)
        for cells in {id(swap.dynamic.cells): swap.dynamic.cells for swap in swaps}.values():
            cells.requires_grad = any(swap.static.weight.requires_grad for swap in swaps if swap.dynamic.cells is cells)
    if not swaps:
        reasons = ''.join(f'\n  {why}: {", ".join(places)}' for why, places in _by_reason(kept).items())
        raise ValueError(f'no convolution of the {type(model).__name__} can be replaced by op={op!r}:{reasons}')
    return swaps, kept


def apply_swaps(model: nn.Module, swaps: list[Swap], kept: dict[str, str]) -> DynamicizeReport:
    """Put the dynamic layers in place."""
    before = _count(model)
    for swap in swaps:
        place(model, swap.names, swap.dynamic)
        for name in swap.names:
            parent = model.get_submodule(name.rpartition('.')[0])
            if getattr(parent, 'efficient_conv_bn_eval_forward', None) is not None:
                parent.turn_on_efficient_conv_bn_eval(False)  # mmcv's ConvModule would read the weight
    warehouses = {}
    if isinstance(swaps[0].dynamic, WarehouseLayer):
        model.warehouse_manager = manager = swaps[0].dynamic.share.warehouse
        manager._register_load_state_dict_pre_hook(_keep_carried_cells, with_module=True)
        warehouses = {name: tuple(cells.shape) for name, cells in zip(manager.names, manager.weights)}
    replaced = tuple(Replacement(names, f'{type(static).__name__}({static.extra_repr()})',
                                 f'{type(dynamic).__name__}({dynamic.extra_repr()})', _count(static), _count(dynamic))
                     for names, static, dynamic in swaps)
    return DynamicizeReport(replaced, kept, before, _count(model), warehouses)


def place(model: nn.Module, names: Sequence[str], layer: nn.Module) -> None:
    """Register a layer under its names in a model."""
    for name in names:
        parent, _, attribute = name.rpartition('.')
        setattr(model.get_submodule(parent), attribute, layer)


def seeded_init_from_static(static: nn.Conv2d, dynamic: nn.Module, noise: float, name: str) -> None:
    """:func:`init_from_static` with noise that depends on nothing but the layer's name.

    All processes of a distributed training get the same, though each loads the static weights by itself.
    """
    static = _as_plain(static)
    if static.weight.is_meta:
        init_from_static(static, dynamic, noise)
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(name.encode()))
        init_from_static(_on_cpu(static), dynamic, noise)


# The op.


def _check_op(op: dict, keep_function: bool) -> tuple[type[ConvArguments], dict]:
    """Its class and own arguments."""
    if not isinstance(op, dict) or 'type' not in op:
        raise ValueError(f"op must be a dict with a type, such as dict(type='ODConv2d', kernel_num=4), but is {op!r}")
    arguments = dict(op)
    name = arguments.pop('type')
    kind = OPS.get(name, name) if isinstance(name, str) else name
    if not any(kind is known for known in OPS.values()):
        raise ValueError(f'op must have a type out of {tuple(OPS)}, but has {name!r}' + did_you_mean(name, OPS))
    taken = [name for name in arguments if name in STATIC_ARGUMENTS]
    if taken or 'kernel_size' in arguments and kind not in SIZE_KEEPING:
        raise ValueError(f'op may not have {", ".join(taken or ["kernel_size"])}: this is taken from the '
                         'convolution that is replaced')
    known = inspect.signature(kind).parameters
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise ValueError(f'op has {", ".join(unknown)}, which {kind.__name__} does not take; it takes '
                         f'{", ".join(name for name in known if name not in (*STATIC_ARGUMENTS, "kernel_size"))}')
    if kind is KWConv2d and keep_function and arguments.get('cell_num_ratio', 1) < 1:
        raise ValueError(f'op has cell_num_ratio={arguments["cell_num_ratio"]!r}: with fewer cells than parts of a '
                         'kernel KWConv2d cannot compute what a convolution does: use keep_function=False and train '
                         'from scratch, or a ratio of at least 1')
    if kind in SIZE_KEEPING and keep_function:
        raise ValueError(f'op {kind.__name__} cannot compute what a convolution does, as it has no static kernel: use '
                         'keep_function=False and train from scratch, or another op')
    if arguments.get('routing') is False:
        networks = 'CondConvResNet or CondConvMobileNetV2' if kind is CondConv2d else 'WeightNetResNet'
        raise ValueError(f"op must leave {kind.__name__}'s routing=True: nothing in the model hands its layers what a "
                         f'block shares. For a routing by block use {networks}')
    return kind, arguments


def _build_dynamic(kind: type[ConvArguments], arguments: dict, static: nn.Conv2d) -> ConvArguments:
    """The layer that is to take a convolution's place, with weights of its own.

    Raises:
        ValueError: it does not fit there, or an argument of the op is wrong.
    """
    plain = _as_plain(static)
    geometry = dict(kernel_size=plain.kernel_size, stride=plain.stride, padding=plain.padding,
                    dilation=plain.dilation, groups=plain.groups, padding_mode=plain.padding_mode)
    if kind in SIZE_KEEPING:
        # Checked with the static kernel size: what `kernel_size` of the op fits by itself need not fit in its place.
        pixels = tuple(d * (k - 1) / 2 for d, k in zip(plain.dilation, plain.kernel_size))
        if plain.padding not in (pixels, 'same'):
            raise ValueError(f'padding must be dilation · (kernel_size − 1) / 2, but the convolution has '
                             f'{plain.padding} at {plain.kernel_size}')
        geometry['padding'] = None
    with torch.device(plain.weight.device):
        dynamic = kind(plain.in_channels, plain.out_channels, **{**geometry, **arguments}, bias=plain.bias is not None,
                       dtype=plain.weight.dtype)
    if kind is FDConv2d and not dynamic.attention_modules():
        raise ValueError(f'one of {plain.in_channels} to {plain.out_channels} channels and {plain.kernel_size} is an '
                         'ordinary convolution')
    return dynamic


def _take_over(static: nn.Conv2d, dynamic: ConvArguments, name: str, keep_function: bool, noise: float) -> None:
    """Give a layer what is to stay of the convolution whose place it takes: the function, if asked, memory format, mode
    and what is frozen.

    Raises:
        ValueError: as of :func:`init_from_static`.
    """
    weight, bias = static.weight, static.bias
    if keep_function:
        seeded_init_from_static(static, dynamic, noise, name)
        dynamic._register_load_state_dict_pre_hook(partial(_take_static_weights, noise=noise), with_module=True)
    if weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        dynamic.to(memory_format=torch.channels_last)
    dynamic.train(static.training)
    dynamic.requires_grad_(weight.requires_grad)
    if bias is not None:
        dynamic.bias.requires_grad_(bias.requires_grad)


def _warehouse_name(model: nn.Module, name: str, conv: nn.Conv2d, groups: dict[str, list[tuple[int, int]]]) -> str:
    """The warehouse of a convolution: by stage, the innermost of the first containers around it, and by kind.

    Convolutions of a stage whose channels are no multiples of each other have several.

    Args:
        model (Module): the model.
        name (str): the convolution's name in it.
        conv (Conv2d): the convolution.
        groups (dict[str, list[tuple[int, int]]]): by stage and kind the channels that a cell of each warehouse maps,
            in and out; what it adds or makes smaller is for the next convolutions.
    """
    parents = name.split('.')[:-1]
    stage = None
    for length in range(1, len(parents) + 1):
        is_container = isinstance(model.get_submodule('.'.join(parents[:length])), (nn.Sequential, nn.ModuleList))
        if stage is not None and not is_container:
            break
        stage = '.'.join(parents[:length]) if is_container else stage
    stage = '.'.join(parents) if stage is None else stage
    kind = '' if conv.groups == 1 else 'depthwise' if conv.groups == conv.in_channels else f'{conv.groups} groups'
    sizes = conv.in_channels // conv.groups, conv.out_channels
    key = ' '.join(filter(None, (stage or 'model', kind)))
    found = groups.setdefault(key, [])
    for index, cell in enumerate(found):
        if all(max(pair) % min(pair) == 0 for pair in zip(cell, sizes)):
            found[index] = tuple(map(min, cell, sizes))
            break
    else:
        found.append(sizes)
        index = len(found) - 1
    return f'{key} ({index + 1})' if index else key


def _as_plain(conv: nn.Conv2d) -> nn.Conv2d:
    """The ``nn.Conv2d`` that computes the same with the same weight; ``conv`` itself where it is one."""
    if type(conv).forward is not Conv2dAdaptivePadding.forward:
        return conv
    with torch.device('meta'):
        plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, 'same', conv.dilation,
                          conv.groups, conv.bias is not None)
    plain.weight, plain.bias = conv.weight, conv.bias
    return plain


def _on_cpu(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution of the same geometry with the weights on the CPU."""
    with torch.device('meta'):
        copy = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
                         conv.dilation, conv.groups, conv.bias is not None, conv.padding_mode)
    copy.weight = nn.Parameter(conv.weight.detach().cpu())
    copy.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().cpu())
    return copy


def _take_static_weights(dynamic: ConvArguments, state_dict: dict[str, Tensor], prefix: str, *_, noise: float) -> None:
    """Before a state dict is loaded: weights of the static convolution become those of the dynamic one.

    So that a model which is dynamic already takes a checkpoint of the static one. Temperature and running statistics
    of the attention stay.
    """
    weight, bias = (state_dict.get(prefix + name) for name in ('weight', 'bias'))
    shape = (dynamic.out_channels, dynamic.in_channels // dynamic.groups, *dynamic.kernel_size)
    own = dict(dynamic.state_dict())
    is_own = all(prefix + name in state_dict for name in own)  # whose kernel may have the static one's name and shape
    if weight is None or weight.shape != shape or is_own or (bias is None) != (dynamic.bias is None) \
            or any(value.is_meta for value in (weight, *own.values())):
        return
    with torch.device('meta'):
        static = nn.Conv2d(dynamic.in_channels, dynamic.out_channels, dynamic.kernel_size, dynamic.stride,
                           dynamic.padding, dynamic.dilation, dynamic.groups, bias is not None, dynamic.padding_mode)
    static.weight, static.bias = nn.Parameter(weight), None if bias is None else nn.Parameter(bias)
    seeded_init_from_static(static, dynamic, noise, prefix[:-1])
    if isinstance(dynamic, WarehouseLayer):
        dynamic.share.warehouse.is_carried = True
    del state_dict[prefix + 'weight']
    state_dict.update((prefix + name, value) for name, value in dynamic.state_dict().items())


def _keep_carried_cells(warehouses: KernelWarehouse, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    """Before a state dict is loaded, and behind the layers: the cells that static weights of it were put into stay."""
    if vars(warehouses).pop('is_carried', False):
        for index, cells in enumerate(warehouses.weights):
            state_dict.setdefault(f'{prefix}weights.{index}', cells.detach())


# Which convolutions.


def _find_convs(model: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """All modules that convolve by a weight of their own, with their names; dynamic ones but not what is in them."""
    found: dict[nn.Module, list[str]] = {}
    inside = None
    for name, module in model.named_modules(remove_duplicate=False):
        if inside is not None and name.startswith(inside):
            continue
        dynamic = isinstance(module, tuple(OPS.values()))
        inside = f'{name}.' if dynamic else None
        if dynamic or isinstance(module, _ConvNd) or _looks_like_conv(module):
            found.setdefault(module, []).append(name)
    return list(found.items())


def _looks_like_conv(module: nn.Module) -> bool:
    """Such as a deformable one, which is no ``_ConvNd``."""
    return hasattr(module, 'kernel_size') and isinstance(getattr(module, 'weight', None), Tensor) \
        and module.weight.dim() >= 4


def _patterns(name: str, value: object) -> list[Pattern]:
    if value is None:
        return []
    patterns = [value] if isinstance(value, (str, re.Pattern)) else value
    if not isinstance(patterns, Sequence) or any(not isinstance(pattern, (str, re.Pattern)) for pattern in patterns):
        raise ValueError(f'{name} must be a glob, a compiled regular expression or a sequence of these, but is '
                         f'{value!r}')
    if name == 'include' and not patterns:
        raise ValueError('include is empty and selects nothing; leave it out to select all')
    return list(patterns)


def _selected(argument: str, pattern: Pattern, names: list[str]) -> set[str]:
    """The names that a pattern selects."""
    if isinstance(pattern, re.Pattern):
        selected = {name for name in names if pattern.search(name)}
    else:
        selected = {name for name in names if any(fnmatchcase(part, pattern) for part in _lineage(name))}
    if not selected:
        text = pattern if isinstance(pattern, str) else pattern.pattern
        known = dict.fromkeys(part for name in names for part in _lineage(name))
        close = difflib.get_close_matches(text, known, 5, cutoff=0.5)
        raise ValueError(f'{argument} has {text!r}, which matches no convolution; '
                         + (f'close names are {", ".join(close)}' if close else
                            f'convolutions are {", ".join(names[:5])}' + (', …' if len(names) > 5 else '')))
    return selected


def _lineage(name: str) -> Iterator[str]:
    """A name and those of the modules around it: '', 'a', 'a.b', 'a.b.c'."""
    parts = name.split('.')
    return ('.'.join(parts[:length]) for length in range(len(parts) + 1))


def _last_blocks(model: nn.Module, count: int) -> tuple[str, ...]:
    """Prefixes of the convolutions in the last residual blocks."""
    blocks: list[str] = []
    for name, module in model.named_modules():
        outer = blocks and name.startswith(blocks[-1])
        if name and not outer and BLOCK.search(type(module).__name__) \
                and any(isinstance(part, nn.Conv2d) for part in module.modules()):
            blocks.append(f'{name}.')
    if len(blocks) < count:
        raise ValueError(f"placement 'last_{count}_blocks' needs as many residual blocks, but the model has "
                         f'{len(blocks)} (modules whose class is named …Block, …Bottleneck or …Residual…); name its '
                         'modules by include instead')
    return tuple(blocks[-count:])


def _unselected(conv: nn.Module, places: list[str], included: set[str] | None, excluded: set[str], stems: set[str],
                bounds: Placement, in_blocks: tuple[str, ...] | None) -> str | None:
    """Why a convolution is not asked for."""
    if isinstance(conv, tuple(OPS.values())):
        return 'is dynamic already'
    if included is not None and included.isdisjoint(places):
        return 'is not in include'
    if not excluded.isdisjoint(places):
        return 'is in exclude'
    if bounds.kernel_size is not None and tuple(conv.kernel_size) != bounds.kernel_size:
        return f'is not {"x".join(map(str, bounds.kernel_size))}'
    if in_blocks is not None and not any(name.startswith(in_blocks) for name in places):
        return f'is not in the last {bounds.last_blocks} blocks'
    if not stems.isdisjoint(places):
        return f'sees the image ({conv.in_channels} input channels)'
    return None


def _refusal(conv: nn.Module, places: list[str], readers: dict[str, str], holders: _Holders) -> str | None:
    """Why no dynamic layer can take a convolution's place."""
    kind = type(conv).__name__
    if isinstance(conv, _ConvTransposeNd):
        return 'is transposed'
    if isinstance(conv, _ConvNd) and not isinstance(conv, nn.Conv2d):
        return 'is not two-dimensional'
    if 'weight' not in conv._parameters:
        return 'is parametrised (spectral norm, weight norm, pruning …)'
    if type(conv).forward is Conv2dAdaptivePadding.forward:
        if conv.stride != (1, 1):
            return 'pads by the size of its input (Conv2dAdaptivePadding with a stride)'
    elif not isinstance(conv, nn.Conv2d) or type(conv).forward not in PLAIN_FORWARDS \
            or type(conv)._conv_forward is not nn.Conv2d._conv_forward or 'forward' in vars(conv):
        return f'computes in a way of its own ({kind})'
    if any(getattr(conv, hooks, None) for hooks in HOOKS) or conv.weight._backward_hooks:
        return 'has hooks'
    if len(holders.of_weight[id(conv.weight)]) > 1:
        return 'shares its weight with another module'
    if id(conv) in holders.outside:
        return f'is held by {holders.outside[id(conv)]} outside of its modules too'
    reader = next((readers[part] for name in places for part in reversed([*_lineage(name)]) if part in readers), None)
    return None if reader is None else f'has its weight read by {reader}'


def _weight_readers(model: nn.Module) -> dict[str, str]:
    """Names of the modules that read the weights of the convolutions in them, with how they do that."""
    readers: dict[str, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        kind = type(module)
        if kind.__name__ in WEIGHT_READERS:
            readers[name] = kind.__name__
        for method in MERGERS:
            function = getattr(kind, method, None)
            if inspect.isfunction(function) and _takes_nothing(function) and _reads_weights(kind, function):
                readers.setdefault(name, f'{kind.__name__}.{method}')
    return readers


def _takes_nothing(method: FunctionType) -> bool:
    """Whether a method can be called without arguments."""
    _, *others = inspect.signature(method).parameters.values()
    return all(other.default is not other.empty for other in others)


def _reads_weights(kind: type, method: FunctionType) -> bool:
    """Whether a method of a class, or a function or other method that it calls, names a ``weight``.

    Not so a model's or a head's that hands the call to the modules within, each of which is judged by itself, or that
    does something else of this name, such as to leave out a branch.
    """
    seen, waiting = set(), [method]
    while waiting:
        function = inspect.unwrap(waiting.pop())
        if not inspect.isfunction(function) or function in seen:
            continue
        seen.add(function)
        names = _names_in(function.__code__)
        if 'weight' in names and not names & WALKS:
            return True
        if not names & WALKS:
            waiting += [getattr(kind, name, function.__globals__.get(name)) for name in names]
    return False


def _names_in(code: CodeType) -> set[str]:
    """The attributes and globals that a function's code names, and the functions within it."""
    within = (_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*within)


class _Holders(NamedTuple):
    """Who refers to what, by id."""

    of_weight: dict[int, set[int]]  # of a parameter: the modules that it is registered in
    outside: dict[int, str]  # of a module: the class that holds it in a plain attribute, list or dict


def _holders(model: nn.Module) -> _Holders:
    of_weight: dict[int, set[int]] = {}
    outside: dict[int, str] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                of_weight.setdefault(id(parameter), set()).add(id(module))
        for name, value in vars(module).items():
            held = value if isinstance(value, (list, tuple)) else value.values() if isinstance(value, dict) else [value]
            if name != '_modules':
                outside.update((id(item), type(module).__name__) for item in held if isinstance(item, nn.Module))
    return _Holders(of_weight, outside)


def _by_reason(kept: dict[str, str]) -> dict[str, list[str]]:
    """The names of each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in kept.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

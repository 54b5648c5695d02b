"""Warehouses of cells that layers share, and how a layer mixes its kernel from them.

KernelWarehouse: Rethinking the Design of Dynamic Convolution (Li, Yao: ICML 2024, https://arxiv.org/abs/2406.07879).
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..functional.attention import hidden_vector
from ..functional.operator import check_dtype, full_precision
from .attention_norm import build_attention_norm
from .average_pool import PoolsFeatures
from .conv_arguments import by_kernel, check_positive_int, check_reduction
from .fully_connected import FullyConnected
from .temperature import TemperatureMixin, check_temperature

RATIOS = ('cell_num_ratio', 'cell_out_ratio', 'cell_in_ratio')
EPSILON = 1e-3  # of the attention's denominator


torch.fx.wrap('one_hot_cells')


def one_hot_cells(like: Tensor, mixtures: int, start: int, ratio: float, cells: int) -> Tensor:
    """β, Tensor[m, n + 1]: the cell of each mixture of a layer whose own ones start there, or none, the last
    (KernelWarehouse, 3.3). It is made anew where it is needed, and no part of a layer's state."""
    mixture = torch.arange(mixtures, device=like.device)
    if ratio >= 1:
        targets = start + mixture * int(ratio)
    else:
        every = int(1 / ratio)
        block = mixture // every
        targets = torch.where(mixture % every == block % every, start + block, cells)
    return (targets.clamp(max=cells)[:, None] == torch.arange(cells + 1, device=like.device)).to(like.dtype)


class Cells(NamedTuple):
    """What a layer has in a warehouse."""

    warehouse: KernelWarehouse
    index: int  # of the warehouse in it
    start: int  # its own cells are those from here
    stop: int  # to here

    @property
    def own(self) -> Tensor:
        """The layer's own cells, Tensor[stop - start, cell_out, cell_in, …]."""
        return self.warehouse.weights[self.index][self.start:self.stop]


class CellAttention(nn.Module, PoolsFeatures):
    r"""The attention of a layer: m mixtures, each of n cells and nothing (KernelWarehouse, Eq. 2 and 3).

    .. math:: \alpha_{ij} = \tau \beta_{ij} + (1 - \tau) \frac{z_{ij}}{\sum_p |z_{ip}| + 10^{-3}}

    z are FC → norm → ReLU → FC of the averaged features, and β gives each mixture one cell. The last of n + 1 entries
    is of no cell, and left out of what is returned.

    Args:
        in_channels, hidden_channels (int): of the features, and behind the first FC.
        m, n (int): mixtures and cells.
        ratio (float): the warehouse's ``cell_num_ratio``, by which β gives each mixture a cell.
        own (tuple[int, int]): from which to which cell are the layer's own.
        bases (int): with 0 there is a logit for each cell. Else the others' are combinations of so many: of ResNet50
            at half the parameters.
        norm_cfg (dict, optional): of the hidden vector.
    """

    def __init__(self, in_channels: int, hidden_channels: int, m: int, n: int, ratio: float, own: tuple[int, int],
                 bases: int, norm_cfg: dict | None) -> None:
        super().__init__()
        self.in_channels, self.mixture_num, self.cell_num, self.ratio = in_channels, m, n, ratio
        self.start, self.stop = own
        self.bases = bases
        self.fc1 = FullyConnected(in_channels, hidden_channels, None, bias=(norm_cfg or {}).get('type') == 'LN')
        self.norm1 = build_attention_norm(norm_cfg, hidden_channels)
        if bases:
            others = n - (self.stop - self.start)
            self.fc2 = FullyConnected(hidden_channels, m * (n - others + bases + 1), None, bias=False)
            self.fc3 = FullyConnected(bases, others, None, bias=False)
            self.basis_bias = nn.Parameter(torch.zeros(m * (n + 1)))
        else:
            self.fc2 = FullyConnected(hidden_channels, m * (n + 1), None)

    def init_weights(self) -> None:
        """FCs Kaiming-normal by fan-out, biases 0."""
        for module in self.children():
            if isinstance(module, FullyConnected):
                module.init_weights()
        if self.bases:
            nn.init.zeros_(self.basis_bias)

    def _beta(self, like: Tensor) -> Tensor:
        return one_hot_cells(like, self.mixture_num, self.start, self.ratio, self.cell_num)

    @torch.no_grad()
    def neutralize_attention(self) -> float:
        """Let z be β for every input, and yet learn.

        Returns:
            float: what of its cell each mixture then is at τ = 0; at τ = 1 it is all of it.
        """
        self.fc2.weight.zero_()
        bias = self.basis_bias if self.bases else self.fc2.bias
        bias.copy_(self._beta(bias).flatten())
        return 1 / (1 + EPSILON)

    def forward(self, x: Tensor, temperature: Tensor) -> Tensor:
        """Of features, Tensor[batch, in_channels, height, width], and τ, a scalar: Tensor[batch, m, n].

        Under autocast it is computed in its parameters' precision.
        """
        check_dtype(x, temperature)
        with full_precision(x):
            m = self.mixture_num
            z = self.fc2(hidden_vector(x, self.fc1, self.norm1, temperature)).unflatten(1, (m, -1))
            if self.bases:
                own = self.stop - self.start
                others = self.fc3(z[..., own:own + self.bases].flatten(0, 1)).unflatten(0, (-1, m))
                z = torch.cat([others[..., :self.start], z[..., :own], others[..., self.start:], z[..., -1:]], -1)
                z = z + self.basis_bias.unflatten(0, (m, -1))
            alpha = z / (z.abs().sum(-1, keepdim=True) + EPSILON)
            return ((1 - temperature) * alpha + temperature * self._beta(temperature))[..., :-1]

    def extra_repr(self) -> str:
        return f'mixtures={self.mixture_num}, cells={self.cell_num}' + (f', bases={self.bases}' if self.bases else '')


class WarehouseLayer(TemperatureMixin):
    """Base of the layers whose kernel is mixed from a warehouse's cells.

    It refers to the :class:`KernelWarehouse` and does not own it, unless it has one to itself, so that cells are
    counted, saved and moved once.
    """

    trained_temperature = 0.
    attention: CellAttention | None

    def _init_warehouse(self, in_channels: int, warehouse: str | None, cell_num_ratio: float, cell_in_ratio: float,
                        cell_out_ratio: float, nonlocal_basis_ratio: float, reduction: float, min_channels: int,
                        temperature: float, norm_cfg: dict | None) -> None:
        """Check and keep the arguments; the layer without a named warehouse gets one to itself."""
        if warehouse is not None and (not isinstance(warehouse, str) or not warehouse):
            raise ValueError(f'warehouse must be the name of what layers share, or None, but is {warehouse!r}')
        for name, value in (('cell_num_ratio', cell_num_ratio), ('cell_in_ratio', cell_in_ratio),
                            ('cell_out_ratio', cell_out_ratio)):
            check_temperature(value, name)
        check_reduction(reduction, '1/16')
        check_reduction(nonlocal_basis_ratio, '1/16', 'nonlocal_basis_ratio')
        check_positive_int('min_channels', min_channels)
        self.warehouse = warehouse
        self.cell_num_ratio, self.cell_in_ratio, self.cell_out_ratio = cell_num_ratio, cell_in_ratio, cell_out_ratio
        self.nonlocal_basis_ratio = nonlocal_basis_ratio
        self._attention_arguments = in_channels, max(int(in_channels * reduction), min_channels), norm_cfg
        self._init_temperature(temperature)
        self.attention = None
        self._share: Cells | None = None
        # a norm that does not fit is refused now, and not when all layers are there
        build_attention_norm(norm_cfg, self._attention_arguments[1])
        if warehouse is None:
            self.warehouse_manager = KernelWarehouse([self])

    def check_temperature(self, temperature: float) -> None:
        """Raise a ValueError unless it is in [0, 1], the weight of β."""
        check_temperature(temperature, least=0, most=1)

    def kernel_sizes(self) -> tuple[int, int, int]:
        """Output channels, input channels of a group, and elements of the kernel."""
        raise NotImplementedError

    @property
    def share(self) -> Cells:
        """What it has in a warehouse.

        Raises:
            ValueError: none was built.
        """
        self._check_built()
        return self._share

    def _check_built(self) -> None:
        """Raise a ValueError unless its warehouse was built."""
        if self._share is None:
            raise ValueError(
                f'warehouse {self.warehouse!r} of this {type(self).__name__} was never built: call '
                'dynconv_mm.build_warehouses(model) when the model has all of its layers, or, in a config, put the '
                "module into dict(type='Warehoused', module=…)")

    @property
    def cells(self) -> nn.Parameter:
        """Those of its warehouse, Parameter[n, cell_out, cell_in, 1, 1]."""
        share = self.share
        return share.warehouse.weights[share.index]

    def _take_cells(self, share: Cells, mixtures: int, cells: int) -> None:
        """Mix the kernel from a warehouse from now on; for :class:`KernelWarehouse`."""
        self._share = share
        in_channels, hidden_channels, norm_cfg = self._attention_arguments
        bases, others = 0, cells - (share.stop - share.start)
        if self.nonlocal_basis_ratio < 1 and others:
            bases = max(int(others * self.nonlocal_basis_ratio), 16)
        self.attention = CellAttention(in_channels, hidden_channels, mixtures, cells, self.cell_num_ratio,
                                       (share.start, share.stop), bases, norm_cfg).to(self.temperature)
        self.attention.train(self.training)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """The layer's own cells Kaiming-normal by fan-out, as the kernel of all of them; FCs too, biases 0."""
        if self._share is not None:
            own = self._share.own
            if own.numel():
                std = math.sqrt(2 / (own.shape[0] * own.shape[1]))
                own.normal_(0, std)
            self.attention.init_weights()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def compute_attentions(self, x: Tensor) -> Tensor:
        """How much of each cell is in each mixture.

        Args:
            x (Tensor[batch, in_channels, height, width]): features.

        Returns:
            Tensor[batch, m, n]: α, which may be negative.
        """
        self._check_built()
        return self.attention(x, self.temperature)

    def attention_modules(self) -> list[nn.Module]:
        return [] if self.attention is None else [self.attention]

    def neutralize_attention(self) -> Tensor:
        """Let each mixture be of the cell that β gives it for every input, and yet learn.

        Returns:
            Tensor[]: what of its cell it is at the layer's temperature.
        """
        self._check_built()
        return self.temperature + (1 - self.temperature) * self.attention.neutralize_attention()

    def _put_into_cells(self, parts: Tensor) -> None:
        """Let mixture i be ``parts[i]``, Tensor[m, cell_out · cell_in], for every input."""
        if self.cell_num_ratio < 1:
            raise ValueError(f'a {type(self).__name__} with cell_num_ratio={self.cell_num_ratio:g} has fewer cells '
                             'than parts of its kernel, and cannot compute what a static layer does: use a ratio of at '
                             'least 1, or train from scratch')
        cells = self.cells
        parts = parts.to(cells) / self.neutralize_attention()
        start, step = self.attention.start, int(self.cell_num_ratio)
        cells[start:start + step * len(parts):step] = parts.view(-1, *cells.shape[1:])

    def _warehouse_repr(self) -> str:
        """The warehouse's name, and the ratios that are not 1."""
        ratios = [f', {name}={getattr(self, name):g}' for name in (*RATIOS, 'nonlocal_basis_ratio')
                  if getattr(self, name) != 1]
        return f'warehouse={self.warehouse!r}' + ''.join(ratios)


class KernelWarehouse(nn.Module):
    """The cells of all warehouses of a model, which owns it once; see :func:`build_warehouses`.

    Args:
        layers (Sequence[WarehouseLayer]): those that take their cells from it, in the model's order. Those of the same
            ``warehouse`` share one.

    Attributes:
        weights (ParameterList): of each warehouse Parameter[n, cell_out, cell_in, 1, 1].
        names (list[str]): of the warehouses.

    Raises:
        ValueError: layers of one warehouse have no cell in common.
    """

    def __init__(self, layers: Sequence[WarehouseLayer]) -> None:
        super().__init__()
        groups: dict[str, list[WarehouseLayer]] = {}
        for layer in layers:
            groups.setdefault(layer.warehouse, []).append(layer)
        plans = [_plan(name, group) for name, group in groups.items()]  # all are right before a layer is changed
        self.names = list(groups)
        self.weights = nn.ParameterList(
            nn.Parameter(layer.temperature.new_empty(n, *cell)) for (layer, *_), (n, cell, _) in
            zip(groups.values(), plans))
        for index, (group, (n, _, mixtures)) in enumerate(zip(groups.values(), plans)):
            start = 0
            for layer, count in zip(group, mixtures):
                # what rounding leaves over is the last layer's
                stop = n if layer is group[-1] else min(start + int(layer.cell_num_ratio * count), n)
                layer._take_cells(Cells(self, index, start, stop), count, n)
                start = stop

    def forward(self, x: Tensor) -> Tensor:
        """What it gets: in a ``Sequential`` it stands behind the layers."""
        return x

    def _apply(self, fn, *args, **kwargs):
        return super()._apply(by_kernel(fn), *args, **kwargs)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                              error_msgs) -> None:
        for index, (name, cells) in enumerate(zip(self.names, self.weights)):
            loaded = state_dict.get(f'{prefix}weights.{index}')
            if loaded is not None and loaded.shape != cells.shape:
                error_msgs.append(
                    f'the checkpoint is of other warehouses: {prefix}weights.{index} ({name!r}) is '
                    f'{list(loaded.shape)} in it, {list(cells.shape)} here. Build the model with the ratios that it '
                    f'was trained with ({", ".join(RATIOS)}), and the same layers')
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                                      error_msgs)

    def extra_repr(self) -> str:
        return ', '.join(f'{name}: {list(cells.shape)}' for name, cells in zip(self.names, self.weights))


def _plan(name: str | None, layers: list[WarehouseLayer]) -> tuple[int, tuple[int, ...], list[int]]:
    """Of a warehouse how many cells there are, the size of one, and how many mixtures each layer has."""
    first = layers[0]
    for ratio in RATIOS:
        values = {getattr(layer, ratio): None for layer in layers}
        if len(values) > 1:
            raise ValueError(f'{ratio} must be the same for all layers of warehouse {name!r}, but is '
                             f'{", ".join(f"{value:g}" for value in values)}: give the others a warehouse of their own')
    if any(layer.trailing != first.trailing for layer in layers):
        raise ValueError(f'warehouse {name!r} has convolutions and fully connected layers, which share no cell: give '
                         'them warehouses of their own')
    sizes = [layer.kernel_sizes() for layer in layers]
    cell_out = max(int(math.gcd(*(out for out, _, _ in sizes)) * first.cell_out_ratio), 1)
    cell_in = max(int(math.gcd(*(channels for _, channels, _ in sizes)) * first.cell_in_ratio), 1)
    if any(out % cell_out or channels % cell_in for out, channels, _ in sizes):
        kernels = ', '.join(f'{channels} → {out}' for out, channels, _ in sizes)
        raise ValueError(f'the layers of warehouse {name!r} have no cell in common: by cell_out_ratio='
                         f'{first.cell_out_ratio:g} and cell_in_ratio={first.cell_in_ratio:g} it maps {cell_in} to '
                         f'{cell_out} channels, which do not divide those of all kernels ({kernels}). Use other ratios '
                         'or a warehouse for each kind of layer')
    mixtures = [out // cell_out * (channels // cell_in) * area for out, channels, area in sizes]
    return max(int(first.cell_num_ratio * sum(mixtures)), 1), (cell_out, cell_in, *first.trailing), mixtures


def build_warehouses(model: nn.Module) -> KernelWarehouse:
    """Build the warehouses that the layers of a model name, as its ``warehouse_manager``.

    It is a module like any other: cells are saved, moved, averaged and shared between processes with the model. Where
    parts of a model are sharded (FSDP), it belongs to the outermost part, as its layers read it in their own calls.

    Args:
        model (Module): has layers with a named ``warehouse``, such as ``KWConv2d(…, warehouse='stage1')``, none of
            which is built yet.

    Returns:
        KernelWarehouse: the same.

    Raises:
        ValueError: the model has no such layer or is built already; layers of one warehouse have no cell in common; or
            a layer's cells are those of another model.

    Example:
        >>> from dynconv_mm import KWConv2d
        >>> model = nn.Sequential(*(KWConv2d(8, 8, 3, padding=1, warehouse='all') for _ in range(2)))
        >>> [tuple(cells.shape) for cells in build_warehouses(model).weights]
        [(18, 8, 8, 1, 1)]
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, WarehouseLayer)}
    modules = set(model.modules())
    for name, layer in layers.items():
        if layer._share is not None and layer._share.warehouse not in modules:
            raise ValueError(f'{name} has its cells in a warehouse that is no part of this {type(model).__name__}: two '
                             'models cannot share one. Build each from layers of its own, or copy the whole model')
    waiting = [layer for layer in layers.values() if layer._share is None]
    if not waiting:
        raise ValueError(f'model, a {type(model).__name__}, has no layer whose warehouse is to be built: name one, as '
                         "in KWConv2d(…, warehouse='stage1'), and build all of them at once")
    if hasattr(model, 'warehouse_manager'):
        raise ValueError(f'model, a {type(model).__name__}, has its warehouses already: build all of them at once')
    model.warehouse_manager = KernelWarehouse(waiting)
    return model.warehouse_manager

"""The layers of KernelWarehouse (ICML 2024, https://arxiv.org/abs/2406.07879)."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..compat.openmmlab import MODELS
from ..functional.cell_conv import cell_conv2d, disassemble
from ..functional.geometry import check_input, check_vectors
from .conv_arguments import ConvArguments, check_positive_int
from .kernel_warehouse import WarehouseLayer

torch.fx.wrap('cell_conv2d')
torch.fx.wrap('check_input')
torch.fx.wrap('check_vectors')


@MODELS.register_module()
class KWConv2d(ConvArguments, WarehouseLayer):
    r"""Convolution whose kernel is put together of mixtures of cells that layers share (KernelWarehouse, Eq. 1 to 3).

    The kernel is cut into m parts of the size of a cell, each element of the window by itself, and part i is
    :math:`\sum_j \alpha_{ij}(x) E_j` over all n cells of the layer's warehouse; see :class:`CellAttention`.

    Layers of the same ``warehouse`` share cells once :func:`build_warehouses` has seen all of them (in a config:
    ``Warehoused``); a backbone does so by itself. Without a name the layer has cells to itself, at once.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype: as in :class:`torch.nn.Conv2d`; ``bias`` is static.
        warehouse (str, optional): name of the warehouse within the model. Default: None, one of its own.
        cell_num_ratio (float): n over the parts of all kernels; 1 is about as many parameters as static kernels have.
            Default: 1.
        cell_in_ratio, cell_out_ratio (float): channels of a cell over the greatest common divisor of the channels of
            all kernels, on either side. Default: 1.
        nonlocal_basis_ratio (float): below 1 the logits of cells that are not the layer's own are made of fewer, this
            share of them, but at least 16. Default: 1.
        reduction (float): r; the attention's hidden width is max(⌊in_channels·r⌋, min_channels). Default: 1/16.
        min_channels (int): least hidden width. Default: 16.
        temperature (float): initial τ, in [0, 1]: 1 gives each part one cell, 0 is the trained state. Default: 0.
        norm_cfg (dict, optional): norm between the FCs: 'BN', 'SyncBN', 'GN', 'LN' or None. Default: dict(type='BN').

    Shape:
        input Tensor[batch, in_channels, height, width], output Tensor[batch, out_channels, out_height,
        out_width], the size as of :class:`torch.nn.Conv2d`; batch 0 gives an empty map.

    Raises:
        ValueError: an argument is not one of the above, the message names it and what it accepts; or the layer is
            called before its warehouse is built.

    Example:
        >>> KWConv2d(32, 48, 3, padding=1)(torch.randn(2, 32, 9, 7)).shape
        torch.Size([2, 48, 9, 7])
    """

    trailing = (1, 1)  # of a cell's shape

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | str | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = 'zeros',
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None,
                 warehouse: str | None = None, cell_num_ratio: float = 1., cell_in_ratio: float = 1.,
                 cell_out_ratio: float = 1., nonlocal_basis_ratio: float = 1., reduction: float = 1 / 16,
                 min_channels: int = 16, temperature: float = 0., norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        self._init_conv_arguments(in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
                                  padding_mode)
        self._init_bias(bias)
        self._init_warehouse(in_channels, warehouse, cell_num_ratio, cell_in_ratio, cell_out_ratio,
                             nonlocal_basis_ratio, reduction, min_channels, temperature, norm_cfg)
        self._place(device, dtype)

    def kernel_sizes(self) -> tuple[int, int, int]:
        return self.out_channels, self.in_channels // self.groups, math.prod(self.kernel_size)

    @torch.no_grad()
    def set_kernel(self, kernel: Tensor) -> None:
        """Let the convolution be that by a kernel, at the temperature that the layer has, and yet all parts learn: each
        part of the kernel is put into the cell that β gives it, and the attention picks that.

        At other temperatures a part is up to 0.1% smaller or larger, as an attention does not quite add up to 1.

        Raises:
            ValueError: there are fewer cells than parts.
        """
        self._put_into_cells(disassemble(kernel[None], self.cells)[0])

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels)
        cells = self.cells
        attention = self.compute_attentions(x)
        x, padding = self._pad(x)
        return cell_conv2d(x, cells, self.bias, attention=attention, kernel_size=self.kernel_size, stride=self.stride,
                           padding=padding, dilation=self.dilation, groups=self.groups)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, {self._warehouse_repr()}'


class KWLinear(WarehouseLayer):
    """A fully connected layer whose matrix is put together as :class:`KWConv2d` does it.

    It mixes the features first, as all rows of cells see them, and multiplies them by the cells as they are, so that
    no matrix is made.

    Args:
        in_features, out_features (int): sizes.
        bias (bool): whether there is a static bias. Default: True.
        **kwargs: ``warehouse`` and the arguments behind it, as of :class:`KWConv2d`.

    Shape:
        input Tensor[batch, in_features], output Tensor[batch, out_features]

    Raises:
        ValueError: as of :class:`KWConv2d`.
    """

    trailing = (1, )

    def __init__(self, in_features: int, out_features: int, bias: bool = True, warehouse: str | None = None,
                 cell_num_ratio: float = 1., cell_in_ratio: float = 1., cell_out_ratio: float = 1.,
                 nonlocal_basis_ratio: float = 1., reduction: float = 1 / 16, min_channels: int = 16,
                 temperature: float = 0., norm_cfg: dict | None = dict(type='BN')) -> None:
        super().__init__()
        for name, value in (('in_features', in_features), ('out_features', out_features)):
            check_positive_int(name, value)
        self.in_features, self.out_features = in_features, out_features
        self.register_parameter('bias', nn.Parameter(torch.zeros(out_features)) if bias else None)
        self._init_warehouse(in_features, warehouse, cell_num_ratio, cell_in_ratio, cell_out_ratio,
                             nonlocal_basis_ratio, reduction, min_channels, temperature, norm_cfg)

    def kernel_sizes(self) -> tuple[int, int, int]:
        return self.out_features, self.in_features, 1

    @torch.no_grad()
    def set_kernel(self, matrix: Tensor) -> None:
        """As of :class:`KWConv2d`, with a Tensor[out_features, in_features]."""
        self._put_into_cells(disassemble(matrix[None, :, :, None, None], self.cells)[0])

    def forward(self, x: Tensor) -> Tensor:
        check_vectors(x, self.in_features)
        cells = self.cells[..., 0]
        _, cell_out, cell_in = cells.shape
        attention = self.compute_attentions(x[:, :, None, None]).unflatten(1, (-1, self.in_features // cell_in))
        # [batch, rows of cells, n, cell_in]
        mixed = attention.to(x.dtype).transpose(2, 3) @ x.unflatten(1, (-1, cell_in))[:, None]
        y = (mixed.flatten(2) @ cells.transpose(1, 2).flatten(0, 1)).flatten(1)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return f'{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self._warehouse_repr()}'

"""What layers of local attention compare: the neighbours of each position, in kernels of a convolution's shape."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import IntPair, output_size, pad_zeros
from .involution import element_shifts
from .operator import export_target


def neighbours(x: Tensor, kernel_size: IntPair, *, stride: IntPair, padding: IntPair, dilation: IntPair) -> Tensor:
    """The features around each position, zeros where there are none.

    Args:
        x (Tensor[batch, channels, height, width]): features.
        kernel_size, stride, padding, dilation (tuple[int, int]): as of :func:`torch.nn.functional.unfold`.

    Returns:
        Tensor[batch, channels, kernel_height · kernel_width, out_height, out_width]
    """
    return torch.stack(_shifted(x, kernel_size, stride, padding, dilation), 2)


def neighbour_products(query: Tensor, key: Tensor, heads: int, kernel_size: IntPair, *, stride: IntPair,
                       padding: IntPair, dilation: IntPair) -> Tensor:
    """The scalar product of each position's query with the keys around it, head by head.

    Args:
        query (Tensor[batch, channels, out_height, out_width]): of each output position.
        key (Tensor[batch, channels, height, width]): of each input position.
        heads (int): groups of neighbouring channels, each with a product of its own.
        kernel_size, stride, padding, dilation (tuple[int, int]): as of :func:`neighbours`.

    Returns:
        Tensor[batch, heads, kernel_height · kernel_width, out_height, out_width]
    """
    return torch.stack([(query * shifted).unflatten(1, (heads, -1)).sum(2)  # the keys are never copied k² times
                        for shifted in _shifted(key, kernel_size, stride, padding, dilation)], 2)


def _shifted(x: Tensor, kernel_size: IntPair, stride: IntPair, padding: IntPair, dilation: IntPair) -> list[Tensor]:
    """For each element of the kernel what it meets, a view."""
    size = output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    padded = pad_zeros(x, padding)
    return [padded[window] for _, _, window in element_shifts(kernel_size, size, stride, dilation)]


def pad_reflected(x: Tensor, padding: IntPair) -> Tensor:
    """Reflect features at their edges, again and again where the map is smaller than its padding.

    Args:
        x (Tensor[batch, channels, height, width]): features.
        padding (tuple[int, int]): rows and columns to add at either side.

    Returns:
        Tensor[batch, channels, height + 2 · padding, width + 2 · padding]
    """
    target = export_target()
    for_any_size = target is not None and target.any_size
    if not for_any_size and padding[0] < x.shape[2] and padding[1] < x.shape[3]:
        return F.pad(x, (padding[1], padding[1], padding[0], padding[0]), mode='reflect')
    rows, columns = (_reflected(size, width, x.device) for size, width in zip(x.shape[2:], padding))
    return x[:, :, rows][:, :, :, columns]


def _reflected(size: int | Tensor, padding: int, device: torch.device) -> Tensor:
    period = _at_least(2 * (size - 1), 1)
    index = torch.arange(-padding, size + padding, device=device) % period
    return torch.minimum(index, period - index)


def _at_least(size: int | Tensor, least: int) -> int | Tensor:
    """The larger one, of a size that is a tensor where a call is traced."""
    return size.clamp(min=least) if isinstance(size, Tensor) else max(size, least)


def normalised_positions(x: Tensor) -> Tensor:
    """Column and row of each position, from -1 to 1.

    Args:
        x (Tensor[batch, channels, height, width]): features, for size, type and device.

    Returns:
        Tensor[1, 2, height, width]
    """
    rows, columns = (  # of at least 2, as ONNX's of 1 is NaN
        torch.linspace(-1, 1, _at_least(size, 2), dtype=x.dtype, device=x.device)[:size] for size in x.shape[2:])
    by_row, by_column = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack([by_column, by_row])[None]


def relative_positions(kernel_size: IntPair, like: Tensor) -> Tensor:
    """Row and column of each element of a window, counted from its middle.

    Args:
        kernel_size (tuple[int, int]): of the window.
        like (Tensor): for type and device.

    Returns:
        Tensor[1, 2, kernel_height, kernel_width]
    """
    rows, columns = (torch.arange(size, dtype=like.dtype, device=like.device) - size // 2 for size in kernel_size)
    return torch.stack(torch.meshgrid(rows, columns, indexing='ij'))[None]

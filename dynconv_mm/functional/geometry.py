"""Features, sizes, strides and padding of convolutions."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

IntPair = tuple[int, int]


def check_input(x: object, in_channels: int | None = None) -> None:
    """Raise a ValueError that says what to do unless ``x`` is a batch of maps with so many channels, or any number
    where None is given, and of no integers."""
    expected = f'[batch, {"channels" if in_channels is None else in_channels}, height, width]'
    if not isinstance(x, Tensor):
        raise ValueError(f'input must be a Tensor{expected}, but is of type {type(x).__name__}')
    if x.dim() != 4:
        hint = {3: ': a single image gets its batch by input[None]', 5: ': frames of a video go into the batch'}
        raise ValueError(f'input must be {expected}, but its shape is {list(x.shape)}{hint.get(x.dim(), "")}')
    if not (x.is_floating_point() or x.is_complex()):
        raise ValueError(f'input must hold floating-point numbers, but is of {x.dtype}: convert it, by input.float()')
    if in_channels is not None and x.shape[1] != in_channels:
        hint = 'its channels come last: move them by input.permute(0, 3, 1, 2)' if x.shape[3] == in_channels else \
            f'build the module with in_channels={x.shape[1]}, or give it features of {in_channels} channels'
        raise ValueError(f'expected input{list(x.shape)} to have {in_channels} channels, but got {x.shape[1]} channels '
                         f'instead; {hint}')


def check_vectors(x: object, length: int, length_name: str = 'in_features', name: str = 'input') -> None:
    """Raise a ValueError unless the argument ``name`` is a batch of vectors of that length, and of no integers."""
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != length or not x.is_floating_point():
        what = f'{x.dtype} {list(x.shape)}' if isinstance(x, Tensor) else f'of type {type(x).__name__}'
        raise ValueError(f'{name} must be floating-point numbers [batch, {length_name}={length}], but is {what}')


def pair(name: str, value: int | IntPair, least: int) -> IntPair:
    """An argument of a convolution for height and width, which may be given as one int.

    Raises:
        ValueError: it is neither an int nor two, or less than ``least``; the message has its name.
    """
    two = (value, value) if isinstance(value, int) else value
    if isinstance(value, bool) or not isinstance(two, (tuple, list)) or len(two) != 2 \
            or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in two):
        raise ValueError(f'{name} must be an int or two ints of at least {least}, but is {value!r}')
    return tuple(two)


def window(stride: int | IntPair, padding: int | IntPair, dilation: int | IntPair) -> tuple[IntPair, IntPair, IntPair]:
    """Stride, padding and dilation, see :func:`pair`."""
    return pair('stride', stride, 1), pair('padding', padding, 0), pair('dilation', dilation, 1)


def output_size(size: IntPair, kernel_size: IntPair, stride: IntPair, padding: IntPair, dilation: IntPair) -> IntPair:
    """Height and width of a convolution's output."""
    return tuple([(s + 2 * p - d * (k - 1) - 1) // t + 1
                  for s, k, t, p, d in zip(size, kernel_size, stride, padding, dilation)])


def pad_zeros(x: Tensor, padding: IntPair) -> Tensor:
    """``x``, Tensor[batch, channels, height, width], with its padding; itself where there is none."""
    return x if padding == (0, 0) else F.pad(x, (padding[1], padding[1], padding[0], padding[0]))


def zeros_padded(x: Tensor, padding: IntPair) -> Tensor:
    """Zeros of the size that ``x``, Tensor[batch, channels, height, width], has with its padding."""
    batch, channels, height, width = x.shape
    return x.new_zeros(batch, channels, height + 2 * padding[0], width + 2 * padding[1])


def without_padding(x: Tensor, padding: IntPair) -> Tensor:
    """``x``, Tensor[batch, channels, height, width], less its padding: a view."""
    height, width = x.shape[2:]
    return x[:, :, padding[0]:height - padding[0], padding[1]:width - padding[1]]

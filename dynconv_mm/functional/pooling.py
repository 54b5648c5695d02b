"""Average pooling to a fixed size, which ONNX has no operator for where the size of the map is open."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from . import portable
from .tracing import is_exported


def adaptive_avg_pool2d(x: Tensor, size: int) -> Tensor:
    """:func:`torch.nn.functional.adaptive_avg_pool2d`, which can be exported for maps of any size.

    Args:
        x (Tensor[batch, channels, height, width]): features.
        size (int): height and width of the result.

    Returns:
        Tensor[batch, channels, size, size]
    """
    return portable.adaptive_avg_pool2d(x, size) if size > 1 and is_exported() else F.adaptive_avg_pool2d(x, size)

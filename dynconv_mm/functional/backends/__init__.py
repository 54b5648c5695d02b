"""The ways to execute the operators, which enter themselves when they are imported."""
from . import (  # noqa: F401
    compiled,
    exported,
    fold,
    graph,
    im2col,
    library,
    mix_after,
    products,
    shared,
    shifted,
)
from .numba import attention, cell_conv, depthwise, enable_numba, involution, mixture_conv  # noqa: F401
from .triton import enable_triton

__all__ = ['enable_numba', 'enable_triton']

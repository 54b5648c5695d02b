"""The ways to execute the operators, which they enter themselves into; what comes first is preferred at equal cost."""
# isort: off
from .numba import enable_numba
from .numba import attention, batch_norm, depthwise, involution, mixture_conv
from .triton import enable_triton
from . import fold, graph, im2col, library, mix_after, products, shared, shifted

__all__ = ['enable_numba', 'enable_triton']

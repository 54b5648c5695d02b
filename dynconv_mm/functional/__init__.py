"""Mathematics on tensors; imports torch alone."""
from .involution import involution2d
from .mixture_conv import mixture_conv2d
from .numba import enable_numba
from .plans import PLANS, use_plan
from .sample_conv import sample_conv2d
from .triton import enable_triton

__all__ = ['PLANS', 'enable_numba', 'enable_triton', 'involution2d', 'mixture_conv2d', 'sample_conv2d', 'use_plan']

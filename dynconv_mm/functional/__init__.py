"""Operators on tensors; imports torch alone."""
from .attention import Head, attention
from .backends import enable_numba, enable_triton
from .batch_norm import BatchNorm
from .cell_conv import cell_conv2d
from .involution import factored_involution2d, involution2d
from .mixture_conv import PLANS, mixture_conv2d, use_plan
from .sample_conv import sample_conv2d

__all__ = [
    'BatchNorm', 'Head', 'PLANS', 'attention', 'cell_conv2d', 'enable_numba', 'enable_triton', 'factored_involution2d',
    'involution2d', 'mixture_conv2d', 'sample_conv2d', 'use_plan'
]

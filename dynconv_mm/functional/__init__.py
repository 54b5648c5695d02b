"""Mathematics on tensors; imports torch alone."""
from .mixture_conv import mixture_conv2d
from .plans import PLANS
from .triton import enable_triton

__all__ = ['PLANS', 'enable_triton', 'mixture_conv2d']

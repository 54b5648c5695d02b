"""Mathematics on tensors; imports torch alone."""
from .mixture_conv import mixture_conv2d
from .plans import PLANS

__all__ = ['PLANS', 'mixture_conv2d']

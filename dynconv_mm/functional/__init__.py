"""Mathematics on tensors; imports torch alone."""
from .involution import involution2d
from .mixture_conv import mixture_conv2d
from .plans import PLANS
from .sample_conv import sample_conv2d

__all__ = ['PLANS', 'involution2d', 'mixture_conv2d', 'sample_conv2d']

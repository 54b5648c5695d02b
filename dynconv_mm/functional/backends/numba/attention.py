"""Attentions by one compiled function, for inference on a CPU.

For few samples it takes longer to call some 25 small operators than what they compute.
"""
from __future__ import annotations

import torch
from torch import Tensor

from ...attention import BACKENDS, Attention, parameters_of
from ...batch_norm import NO_NORM, batch_norm_of
from ...operator import is_inference
from . import SERIAL_PRODUCTS, ZEROS, addresses, load, refuses


def attention(call: Attention) -> dict[str, Tensor] | None:
    """The attentions of a call, or None where the compiled function does not serve."""
    x, fc, norm, heads, temperature, pool_size = call
    of_norm, own = NO_NORM if norm is None else batch_norm_of(norm), parameters_of(fc)
    if of_norm is None or own is None or pool_size > 1:
        return None
    hidden, channels = own['weight'].shape[:2]
    # tensors, and how many numbers each must have
    parts = [(own['weight'], hidden * channels), (own['bias'], hidden), *[(tensor, hidden) for tensor in of_norm[:4]],
             (temperature, 1)]
    lengths = []
    for head in heads.values():
        own = parameters_of(head.fc)
        if own is None:
            return None
        length = own['weight'].shape[0]
        lengths.append(length)
        parts += (own['weight'], length * hidden), (own['bias'], length)
    tensors = [x, *[tensor for tensor, _ in parts]]
    if not is_inference(*tensors) or refuses(x, 'attention'):
        return None
    batch, _, height, width = x.shape
    pixels, threads = height * width, torch.get_num_threads()
    if threads > 1 and batch * hidden * (channels + sum(lengths)) > SERIAL_PRODUCTS:
        return None
    if not x.is_contiguous() or threads > 1 and x.numel() > SERIAL_PRODUCTS:
        x, pixels = x.mean((2, 3)), 1
    at = addresses(x.dtype, (x, batch * channels * pixels), *parts)
    if at is None:
        return None
    attentions, numbers = {}, []
    for index, (name, head) in enumerate(heads.items()):
        attentions[name] = result = x.new_empty(batch, lengths[index])
        span = lengths[index] // head.copies if head.softmax else 0
        numbers += at[8 + 2 * index], at[9 + 2 * index], lengths[index], span, result.data_ptr()
    load('attention').attend(ZEROS[x.dtype], at[0], batch, channels, pixels, at[1], at[2], hidden, *at[3:7], of_norm[4],
                             at[7], tuple(numbers))
    for name, head in heads.items():
        if head.copies > 1:
            attentions[name] = attentions[name].unflatten(1, (head.copies, -1))
    return attentions


BACKENDS['numba'] = attention

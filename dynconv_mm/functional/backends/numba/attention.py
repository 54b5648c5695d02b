"""Attentions by one compiled function, for inference on a CPU.

For few samples it takes longer to call some 25 small operators than what they compute.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ...attention import BACKENDS, Attention, fully_connected
from ...batch_norm import batch_norm_of
from ...operator import is_plain, is_plain_eager, records_gradients
from . import SERIAL_PRODUCTS, ZEROS, addresses, load, refuses

NO_NORM = (None, None, None, None, 0.)


def attention(call: Attention) -> dict[str, Tensor] | None:
    """The attentions of a call, or None where the compiled function does not serve."""
    x, fc, norm, heads, temperature, pool_size = call
    fcs = [fc, *[head.fc for head in heads.values()]]
    if pool_size > 1 or not all([type(layer).forward is fully_connected and is_plain(layer) for layer in fcs]):
        return None
    without = norm is None or type(norm) is nn.Identity and is_plain(norm)
    of_norm = NO_NORM if without else batch_norm_of(norm)
    if of_norm is None or any([head.softmax and head.copies > 1 for head in heads.values()]):
        return None
    weights = [layer.weight for layer in fcs]
    biases = [layer.bias for layer in fcs]
    tensors = [x, *weights, *biases, *of_norm[:4], temperature]
    if not is_plain_eager(*tensors) or records_gradients(*tensors) or refuses(x, 'attention'):
        return None
    batch, channels = x.shape[:2]
    hidden = weights[0].shape[0]
    lengths = [weight.shape[0] for weight in weights[1:]]
    logits = sum(lengths)
    threads = torch.get_num_threads()
    if threads > 1 and batch * hidden * (channels + logits) > SERIAL_PRODUCTS:
        return None
    pixels = x.shape[2] * x.shape[3]
    if not x.is_contiguous() or threads > 1 and x.numel() > SERIAL_PRODUCTS:
        x, pixels = x.mean((2, 3)), 1
    at = addresses(x.dtype, (x, batch * channels * pixels), (temperature, 1), (weights[0], hidden * channels),
                   (biases[0], hidden), *[(tensor, hidden) for tensor in of_norm[:4]],
                   *[(weight, length * hidden) for weight, length in zip(weights[1:], lengths)],
                   *[(bias, length) for bias, length in zip(biases[1:], lengths)])
    if at is None:
        return None
    result = x.new_empty(batch, logits)
    count = len(lengths)
    load('attention').attend(
        ZEROS[x.dtype], at[0], batch, channels, pixels, at[2], at[3], hidden, *at[4:8], of_norm[4],
        tuple(at[8:8 + count]), tuple(at[8 + count:]), tuple(lengths),
        tuple([int(head.softmax) for head in heads.values()]), logits, at[1], result.data_ptr())
    attentions = dict(zip(heads, result.split(lengths, 1)))
    for name, head in heads.items():
        if head.copies > 1:
            attentions[name] = attentions[name].unflatten(1, (head.copies, -1))
    return attentions


BACKENDS['numba'] = attention

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
    weights, biases = [], []
    for layer in (fc, *[head.fc for head in heads.values()]):
        own = layer._parameters
        if type(layer).forward is not fully_connected or 'weight' not in own or not is_plain(layer):
            return None
        weights.append(own['weight'])
        biases.append(own['bias'])
    without = norm is None or type(norm) is nn.Identity and is_plain(norm)
    of_norm = NO_NORM if without else batch_norm_of(norm)
    if of_norm is None or pool_size > 1:
        return None
    tensors = (x, *weights, *biases, *of_norm[:4], temperature)
    if not is_plain_eager(*tensors) or records_gradients(*tensors) or refuses(x, 'attention'):
        return None
    batch, channels, height, width = x.shape
    (hidden, *_), *lengths = [weight.shape for weight in weights]
    lengths = tuple([shape[0] for shape in lengths])
    pixels = height * width
    threads = torch.get_num_threads()
    if threads > 1 and batch * hidden * (channels + sum(lengths)) > SERIAL_PRODUCTS:
        return None
    if not x.is_contiguous() or threads > 1 and x.numel() > SERIAL_PRODUCTS:
        x, pixels = x.mean((2, 3)), 1
    at = addresses(x.dtype, (x, batch * channels * pixels), (temperature, 1), (weights[0], hidden * channels),
                   (biases[0], hidden), *[(tensor, hidden) for tensor in of_norm[:4]],
                   *[(weight, length * hidden) for weight, length in zip(weights[1:], lengths)],
                   *[(bias, length) for bias, length in zip(biases[1:], lengths)])
    if at is None:
        return None
    results = [x.new_empty(batch, length) for length in lengths]
    count = 8 + len(lengths)
    # of several kernels: softmax over each one's attention
    softmax = tuple([length // head.copies if head.softmax else 0 for length, head in zip(lengths, heads.values())])
    load('attention').attend(ZEROS[x.dtype], at[0], batch, channels, pixels, at[2], at[3], hidden, *at[4:8], of_norm[4],
                             tuple(at[8:count]), tuple(at[count:]), lengths, softmax, at[1],
                             tuple([result.data_ptr() for result in results]))
    attentions = dict(zip(heads, results))
    for name, head in heads.items():
        if head.copies > 1:
            attentions[name] = attentions[name].unflatten(1, (head.copies, -1))
    return attentions


BACKENDS['numba'] = attention

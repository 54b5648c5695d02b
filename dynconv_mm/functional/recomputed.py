"""Mixing kernels for a few samples at a time, and again in the backward pass, so that no more are kept."""
from __future__ import annotations

import torch
from torch import Tensor

from .depthwise import depthwise_conv2d
from .mixture import ATTENTIONS, Mixture, scaled_kernels, select
from .sample_conv import sample_conv2d, sample_conv2d_backward
from .second_order import differentiable_gradients

# the tensors of a mixture, in the order in which the function takes and differentiates them
TENSORS = ('input', 'weight', 'bias', *ATTENTIONS)


def convolve(m: Mixture, fuse: bool = True) -> Tensor:
    """A mixture by kernels made for all samples at once, which autograd keeps; ``fuse`` as of
    :func:`~dynconv_mm.functional.mixture.scaled_kernels`."""
    kernels = scaled_kernels(m, fuse)
    if fuse and m.is_depthwise and m.weight.shape[1] == m.groups:
        y = depthwise_conv2d(m.input, kernels.flatten(0, 1), m.bias, m.stride, m.padding, m.dilation)
        if y is not None:
            return y
    return sample_conv2d(m.input, kernels, m.bias, stride=m.stride, padding=m.padding, dilation=m.dilation,
                         groups=m.groups)


def convolve_recomputed(m: Mixture, samples: int) -> Tensor:
    """A mixture by kernels made for ``samples`` samples at a time, and made anew in the backward pass."""
    return _RecomputedKernels.apply(samples, m[7:], *(getattr(m, name) for name in TENSORS))


class _RecomputedKernels(torch.autograd.Function):

    @staticmethod
    def forward(ctx, samples: int, geometry: tuple, *tensors: Tensor | None) -> Tensor:
        ctx.samples, ctx.geometry = samples, geometry
        ctx.save_for_backward(*tensors)
        m = _mixture(tensors, geometry)
        batch = m.input.shape[0]
        fuse = not any(ctx.needs_input_grad)
        if batch <= samples:
            y = convolve(m, fuse)
            # no view, which an in-place activation behind it could not change
            return torch.ops.aten._unsafe_view(y, y.shape)
        return torch.cat([convolve(select(m, start, start + samples), fuse) for start in range(0, batch, samples)])

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple:
        tensors = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, None, *differentiable_gradients(lambda *tensors: convolve(_mixture(tensors, ctx.geometry)),
                                                          tensors, ctx.needs_input_grad[2:], grad_output))
        wanted = [name for name, needed in zip(TENSORS, ctx.needs_input_grad[2:]) if needed]
        whole = _mixture(tensors, ctx.geometry)
        grads: dict[str, list[Tensor]] = {name: [] for name in wanted}
        geometry = dict(stride=whole.stride, padding=whole.padding, dilation=whole.dilation, groups=whole.groups)
        for start in range(0, len(grad_output), ctx.samples):
            m = select(whole, start, start + ctx.samples)
            grad = grad_output[start:start + ctx.samples]
            leaves = {name: getattr(m, name).detach().requires_grad_() for name in wanted
                      if name not in ('input', 'bias')}
            with torch.enable_grad():
                kernels = scaled_kernels(m._replace(**leaves))
            part = {}
            part['input'], grad_kernels = sample_conv2d_backward(grad, m.input, kernels.detach(), 'input' in wanted,
                                                                 bool(leaves), **geometry)
            if 'bias' in wanted:
                part['bias'] = grad.sum((0, 2, 3))
            if leaves:
                part.update(zip(leaves, torch.autograd.grad(kernels, list(leaves.values()), grad_kernels)))
            for name in wanted:
                if grads[name] and name in ('weight', 'bias'):
                    grads[name][0].add_(part[name])
                else:
                    grads[name].append(part[name])
        joined = {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in grads.items()}
        return (None, None, *(joined.get(name) for name in TENSORS))


def _mixture(tensors: tuple, geometry: tuple) -> Mixture:
    return Mixture(*tensors, *geometry)

"""The kernels compute involution's Eq. 4 and its gradients."""
from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip('triton', '3.7', reason='the kernels need Triton 3.7 or newer, which this torch does not bring')

from dynconv_mm.functional.triton.involution import serves, triton_involution2d

LAYOUTS = {
    'contiguous': lambda t: t,
    'channels_last': lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
    'strided': lambda t: torch.stack((t, t), -1)[..., 0],
}


def reference(input: Tensor, weight: Tensor, kernel_size, stride, padding, dilation) -> Tensor:
    """y[b, c, h, w] = Σ_ij H[b, g(c), ij, h, w] x[b, c, s h + d i - p, s w + d j - p]"""
    batch, groups, _, out_height, out_width = weight.shape
    columns = F.unfold(input, kernel_size, dilation, padding, stride)
    columns = columns.reshape(batch, groups, input.shape[1] // groups, -1, out_height, out_width)
    return (weight[:, :, None] * columns).sum(3).flatten(1, 2)


class Case(NamedTuple):
    batch: int = 2
    groups: int = 2
    group_channels: int = 3
    kernel: tuple[int, int] = (3, 1)
    size: tuple[int, int] = (5, 4)
    stride: tuple[int, int] = (2, 1)
    padding: tuple[int, int] = (1, 0)
    dilation: tuple[int, int] = (1, 1)
    layout: str = 'contiguous'

    @property
    def arguments(self) -> tuple[tuple[int, int], ...]:
        return self.kernel, self.stride, self.padding, self.dilation

    def make_tensors(self, dtype: torch.dtype = torch.float64, device: str = 'cpu') -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        out = [(s + 2 * p - d * (k - 1) - 1) // t + 1
               for s, k, t, p, d in zip(self.size, *self.arguments)]
        shapes = ((self.batch, self.groups * self.group_channels, *self.size),
                  (self.batch, self.groups, self.kernel[0] * self.kernel[1], *out))
        return tuple(LAYOUTS[self.layout](torch.randn(shape, generator=generator, dtype=torch.float64)
                                          .to(device, dtype)).detach().requires_grad_() for shape in shapes)


@st.composite
def cases(draw) -> Case:
    kernel = draw(st.sampled_from([(1, 1), (3, 1), (1, 5), (7, 1), (3, 3), (7, 7)]))
    stride, dilation, padding = (draw(st.tuples(*[st.sampled_from(values)] * 2)) for values in (
        (1, 2, 3), (1, 2), (0, 1, 3)))
    area = kernel[0] * kernel[1]
    groups = draw(st.integers(1, 3 if area < 10 else 1))
    batch = draw(st.integers(1, max(1, min(5, 30 // (groups * area)))))
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 4))
                 for k, p, d in zip(kernel, padding, dilation))
    return Case(batch, groups, draw(st.integers(1, 7)), kernel, size, stride, padding, dilation,
                draw(st.sampled_from(list(LAYOUTS))))


def assert_agree(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    error = (actual.double() - expected).abs().max()
    assert error <= tolerance * (1 + expected.abs().max()), f'{what}: {error}'


def check(case: Case, device: str, dtype: torch.dtype = torch.float64, tolerance: float = 1e-10) -> None:
    tensors = case.make_tensors(dtype, device)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    assert serves(*tensors)
    actual, expected = triton_involution2d(*tensors, *case.arguments), reference(*exact, *case.arguments)
    assert actual.dtype == dtype
    assert_agree(actual, expected, tolerance, 'output')
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    gradients = torch.autograd.grad(actual, tensors, LAYOUTS[case.layout](upstream))
    expected_gradients = torch.autograd.grad(expected, exact, upstream.double())
    for name, gradient, expected_gradient in zip(('input', 'weight'), gradients, expected_gradients):
        assert gradient.dtype == dtype
        assert_agree(gradient, expected_gradient, tolerance, f'gradient of {name}')


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_equation(device, case):
    check(case, device)


def test_sizes_beyond_one_block(device):
    """More channels in a group and more pixels than one program takes."""
    check(Case(1, 2, 21, (1, 2), (11, 13), (1, 1), (0, 0), (1, 1)), device)


@pytest.mark.parametrize(('dtype', 'tolerance'), [
    (torch.float32, 1e-5), (torch.bfloat16, .02), (torch.float16, 3e-3)], ids=str)
def test_types(device, dtype, tolerance):
    check(Case(), device, dtype, tolerance)


def test_mixed_types(device):
    """As torch's own arithmetic: the output has the wider type, each gradient its tensor's."""
    x, weight = Case().make_tensors(torch.float32, device)
    y = triton_involution2d(x, weight.bfloat16(), *Case().arguments)
    assert y.dtype == torch.float32
    assert_agree(y, reference(x.double(), weight.bfloat16().double(), *Case().arguments), 1e-5, 'output')
    y.sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_memory_format(device, memory_format):
    x, weight = Case().make_tensors(device=device)
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()
    y = triton_involution2d(x, weight, *Case().arguments)
    assert y.is_contiguous(memory_format=memory_format)
    gradient, = torch.autograd.grad(y.sum(), x)
    assert gradient.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(('shape', 'words'), [
    ((2, 2, 3, 3, 3), 'weight must be'), ((2, 2, 9, 3, 4), 'weight must be'), ((1, 2, 3, 3, 4), 'weight must be'),
    ((2, 6, 3, 4), 'weight must be'), ((2, 4, 3, 3, 4), 'must divide the channels'),
])
def test_bad_shapes_are_refused(device, shape, words):
    x, _ = Case().make_tensors(device=device)
    with pytest.raises(ValueError, match=words):
        triton_involution2d(x, torch.ones(shape, dtype=x.dtype, device=device), *Case().arguments)


def test_inputs_smaller_than_the_kernel_are_refused(device):
    with pytest.raises(ValueError, match='input must not be smaller than the kernel'):
        triton_involution2d(torch.ones(1, 4, 2, 2, device=device), torch.ones(1, 2, 9, 1, 1, device=device),
                            (3, 3), (1, 1), (0, 0), (1, 1))


def test_what_it_serves(device):
    x, weight = Case().make_tensors(device=device)
    assert serves(x, weight) and not serves(x[:0], weight[:0]) and not serves(x.int(), weight)

"""involution2d by the kernels: Eq. 4 and its gradients."""
from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip('triton', '3.6', reason='the kernels need Triton 3.6 or newer, which this torch does not bring')

from dynconv_mm.functional import enable_triton, involution2d
from dynconv_mm.functional.backends.triton import involution as kernels
from dynconv_mm.functional.involution import INVOLUTION, Involution

LAYOUTS = {
    'contiguous': lambda t: t,
    # of the kernels: as a convolution in channels_last puts them out
    'channels_last': lambda t: (t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else
                                t.permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2)),
    'strided': lambda t: torch.stack((t, t), -1)[..., 0],
}


@pytest.fixture(autouse=True)
def calls(monkeypatch) -> list[str]:
    """Switch the kernels on, and write down which are used."""
    calls = []
    for name in ('forward', '_grad_input', '_grad_weight'):
        monkeypatch.setattr(kernels, name, lambda *arguments, _name=name, _run=getattr(kernels, name): (
            calls.append(_name), _run(*arguments))[1])
    with enable_triton():
        yield calls


def reference(input: Tensor, weight: Tensor, kernel_size, stride, padding, dilation) -> Tensor:
    """y[b, c, h, w] = Σ_ij H[b, g(c), i, j, h, w] x[b, c, s h + d i - p, s w + d j - p]"""
    columns = F.unfold(input, kernel_size, dilation, padding, stride)
    columns = columns.reshape(*weight.shape[:2], input.shape[1] // weight.shape[1], *weight.shape[2:])
    return (weight[:, :, None] * columns).sum((3, 4)).flatten(1, 2)


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
    def geometry(self) -> dict[str, tuple[int, int]]:
        return dict(stride=self.stride, padding=self.padding, dilation=self.dilation)

    def make_tensors(self, dtype: torch.dtype = torch.float64, device: str = 'cpu') -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        out = [(s + 2 * p - d * (k - 1) - 1) // t + 1
               for s, k, t, p, d in zip(self.size, self.kernel, *self.geometry.values())]
        shapes = ((self.batch, self.groups * self.group_channels, *self.size),
                  (self.batch, self.groups, *self.kernel, *out))
        return tuple(LAYOUTS[self.layout](torch.randn(shape, generator=generator, dtype=torch.float64)
                                          .to(device, dtype)).detach().requires_grad_() for shape in shapes)


@st.composite
def cases(draw) -> Case:
    kernel = draw(st.sampled_from([(1, 1), (3, 1), (1, 5), (7, 1), (3, 3), (5, 3)]))
    stride, dilation, padding = (draw(st.tuples(*[st.sampled_from(values)] * 2)) for values in (
        (1, 2, 3), (1, 2), (0, 1, 3)))
    area = kernel[0] * kernel[1]
    groups = draw(st.integers(1, 3 if area < 10 else 2))
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
    actual, expected = involution2d(*tensors, **case.geometry), reference(*exact, case.kernel, **case.geometry)
    assert actual.dtype == dtype
    assert_agree(actual, expected, tolerance, 'output')
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    gradients = torch.autograd.grad(actual, tensors, LAYOUTS[case.layout](upstream))
    expected_gradients = torch.autograd.grad(expected, exact, upstream.double())
    for name, gradient, expected_gradient in zip(('input', 'weight'), gradients, expected_gradients):
        assert gradient.dtype == dtype
        assert_agree(gradient, expected_gradient, tolerance, f'gradient of {name}')


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_memory_format(device, layout):
    case = Case(layout=layout)
    x, weight = case.make_tensors(device=device)
    y = involution2d(x, weight, **case.geometry)
    assert y.is_contiguous() == (layout == 'contiguous')
    assert y.is_contiguous(memory_format=torch.channels_last) == (layout == 'channels_last')
    for tensor, gradient in zip((x, weight), torch.autograd.grad(y.sum(), (x, weight))):
        assert gradient.stride() == tensor.stride()


def test_the_kernels_are_used(device, calls):
    case = Case()
    x, weight = case.make_tensors(device=device)
    involution2d(x, weight, **case.geometry).sum().backward()
    assert calls == ['forward', '_grad_input', '_grad_weight']
    calls.clear()
    involution2d(x.detach(), weight, **case.geometry).sum().backward()
    assert calls == ['forward', '_grad_weight']
    calls.clear()
    with enable_triton(False):
        involution2d(x, weight, **case.geometry).sum().backward()
    involution2d(x[:0], weight[:0], **case.geometry).sum().backward()  # nothing to launch
    assert not calls


def test_second_derivatives(device):
    case = Case()
    tensors, seconds = case.make_tensors(device=device), []
    for y in (involution2d(*tensors, **case.geometry), reference(*tensors, case.kernel, **case.geometry)):
        gradients = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
        seconds.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), tensors))
    torch.testing.assert_close(*seconds)


def test_in_a_compiled_function(device, calls):
    case = Case()
    x, weight = case.make_tensors(device=device)
    function = torch.compile(lambda x: 2 * involution2d(x, weight, **case.geometry), backend='aot_eager',
                             fullgraph=True)
    y = function(x)
    assert_agree(y, 2 * reference(x, weight, case.kernel, **case.geometry), 1e-10, 'output')
    y.sum().backward()
    assert 'forward' in calls and '_grad_input' in calls


def test_what_they_serve(device):
    x, weight = Case().make_tensors(device=device)
    refuses, geometry = INVOLUTION.backends['triton'].refuses, ((1, 1), (0, 0), (1, 1))
    assert refuses(Involution(x, weight, *geometry)) is None
    assert refuses(Involution(x.int(), weight, *geometry)) is not None

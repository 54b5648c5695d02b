"""involution2d is its equation, in outputs and gradients, by each of its implementations."""
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dynconv_mm.functional import enable_numba, involution2d
from dynconv_mm.functional.backends import products
from dynconv_mm.functional.involution import Involution

GEOMETRIES = {  # kernel_size, stride, padding, dilation, size
    '7x7': ((7, 7), (1, 1), (3, 3), (1, 1), (9, 8)),
    '3x3 strided': ((3, 3), (2, 2), (1, 1), (1, 1), (7, 9)),
    '5x3 dilated': ((5, 3), (1, 2), (4, 1), (2, 1), (6, 11)),
    'stride and dilation': ((3, 5), (2, 2), (2, 4), (2, 2), (9, 10)),
    'stride beyond the kernel': ((1, 1), (3, 2), (0, 0), (1, 1), (7, 5)),
    'without padding': ((3, 3), (2, 3), (0, 0), (1, 2), (8, 9)),
    'even and wide padding': ((2, 4), (3, 2), (1, 5), (3, 1), (6, 5)),
    'smaller than the kernel': ((7, 7), (2, 2), (3, 3), (1, 1), (1, 2)),
    'several blocks of rows': ((3, 3), (1, 1), (1, 1), (1, 1), (13, 58)),
}


def out_sizes(kernel_size, stride, padding, dilation, size) -> list[int]:
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel_size, stride, padding, dilation)]


def make(geometry, batch: int = 2, groups: int = 3, group_channels: int = 2,
         dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, dict]:
    generator = torch.Generator().manual_seed(0)
    kernel_size, stride, padding, dilation, size = geometry
    x = torch.randn(batch, groups * group_channels, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(batch, groups, *kernel_size, *out_sizes(*geometry), generator=generator, dtype=torch.float64)
    return (x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(),
            dict(stride=stride, padding=padding, dilation=dilation))


def literal(x: Tensor, weight: Tensor, stride, padding, dilation) -> Tensor:
    """The equation, element by element."""
    batch, channels, height, width = x.shape
    _, groups, kernel_height, kernel_width, out_height, out_width = weight.shape
    rows = []
    for h in range(out_height):
        for w in range(out_width):
            total = x.new_zeros(batch, channels)
            for i in range(kernel_height):
                for j in range(kernel_width):
                    r = stride[0] * h + dilation[0] * i - padding[0]
                    c = stride[1] * w + dilation[1] * j - padding[1]
                    if 0 <= r < height and 0 <= c < width:
                        own = torch.stack([weight[:, channel * groups // channels, i, j, h, w]
                                           for channel in range(channels)], 1)
                        total = total + own * x[:, :, r, c]
            rows.append(total)
    return torch.stack(rows, -1).unflatten(-1, (out_height, out_width))


@pytest.mark.parametrize('numba', [True, False], ids=['numba', 'torch'])
@pytest.mark.parametrize('name', GEOMETRIES)
def test_equation_and_gradients(name, numba):
    x, weight, geometry = make(GEOMETRIES[name])
    expected = literal(x, weight, **geometry)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected_gradients = torch.autograd.grad(expected, (x, weight), grad)
    with enable_numba(numba):
        actual = involution2d(x, weight, **geometry)
        gradients = torch.autograd.grad(actual, (x, weight), grad)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)

    # what other devices run
    call = Involution(x.detach(), weight.detach(), *geometry.values())
    torch.testing.assert_close(products.forward(call), expected.detach(), rtol=0, atol=1e-12)
    gradients = products.backward(call, grad, (True, True))
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', ['stride and dilation', 'smaller than the kernel'])
def test_gradcheck(name):
    x, weight, geometry = make(GEOMETRIES[name], group_channels=1)
    assert torch.autograd.gradcheck(lambda *tensors: involution2d(*tensors, **geometry), (x, weight))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_geometry(data):
    """Against im2col, in float64."""
    numba = data.draw(st.booleans())
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    kernel_size, stride, padding, dilation = (data.draw(pair(*limits)) for limits in ((1, 4), (1, 4), (0, 3), (1, 3)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel_size, padding, dilation)]
    size = tuple(low + more for low, more in zip(least, data.draw(pair(0, 9))))
    groups, group_channels = data.draw(pair(1, 3))
    x, weight, geometry = make((kernel_size, stride, padding, dilation, size), 2, groups, group_channels)
    columns = torch.nn.functional.unfold(x, kernel_size, dilation, padding, stride)
    columns = columns.view(2, groups, group_channels, *kernel_size, *weight.shape[4:])
    expected = (columns * weight[:, :, None]).sum((3, 4)).flatten(1, 2)
    with enable_numba(numba):
        actual = involution2d(x, weight, **geometry)
        gradients = torch.autograd.grad(actual.square().sum(), (x, weight))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(gradients,
                               torch.autograd.grad(expected.square().sum(), (x, weight)), rtol=0, atol=1e-9)


@pytest.mark.parametrize('run', [involution2d, lambda x, weight, **geometry: products.forward(
    Involution(x, weight, *geometry.values()))], ids=['cpu', 'any'])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)], ids=str)
def test_lower_precision(run, dtype, tolerance):
    x, weight, geometry = make(GEOMETRIES['7x7'], dtype=dtype)
    x, weight = x.detach(), weight.detach()
    expected = involution2d(x.double(), weight.double(), **geometry)
    actual = run(x, weight, **geometry)
    assert actual.dtype == dtype  # summed up in float32, so that only the result is rounded
    assert (actual - expected).abs().max() < tolerance * expected.abs().max() / 4


def test_gradients_in_bfloat16():
    x, weight, geometry = make(GEOMETRIES['7x7'], dtype=torch.bfloat16)
    gradients = torch.autograd.grad(involution2d(x, weight, **geometry).sum(), (x, weight))
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    expected = torch.autograd.grad(involution2d(*exact, **geometry).sum(), exact)
    for actual, wanted in zip(gradients, expected):
        assert actual.dtype == torch.bfloat16
        assert (actual - wanted).abs().max() < 5e-3 * wanted.abs().max()


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('positions_first', [False, True])
def test_memory_orders(channels_last, positions_first):
    x, weight, geometry = make(GEOMETRIES['3x3 strided'])
    x, weight = x.detach(), weight.detach()
    expected = involution2d(x, weight, **geometry)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    if positions_first:
        weight = weight.permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2)
    x.requires_grad_(), weight.requires_grad_()
    actual = involution2d(x, weight, **geometry)
    torch.testing.assert_close(actual, expected)
    assert actual.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    for tensor, grad in zip((x, weight), torch.autograd.grad(actual.sum(), (x, weight))):
        assert grad.stride() == tensor.stride()


@pytest.mark.parametrize('wanted', [(True, False), (False, True)], ids=['input', 'weight'])
def test_one_gradient_alone(wanted):
    x, weight, geometry = make(GEOMETRIES['7x7'])
    expected = torch.autograd.grad(involution2d(x, weight, **geometry).sum(), (x, weight))
    x.requires_grad_(wanted[0]), weight.requires_grad_(wanted[1])
    involution2d(x, weight, **geometry).sum().backward()
    for tensor, need, gradient in zip((x, weight), wanted, expected):
        torch.testing.assert_close(tensor.grad, gradient if need else None)


def test_an_empty_batch():
    x, weight, geometry = make(GEOMETRIES['3x3 strided'], batch=0)
    y = involution2d(x, weight, **geometry)
    assert y.shape == (0, 6, 4, 5)
    y.sum().backward()
    assert x.grad.shape == x.shape and weight.grad.shape == weight.shape


@pytest.mark.parametrize('name', ['3x3 strided', 'stride and dilation'])
def test_second_derivatives(name):
    kernel_size, stride, padding, dilation, _ = GEOMETRIES[name]
    x, weight, geometry = make((kernel_size, stride, padding, dilation, (5, 4)), 2, 2, 2)
    assert torch.autograd.gradgradcheck(lambda *tensors: involution2d(*tensors, **geometry), (x, weight))


@pytest.mark.parametrize('wanted', [(True, False), (False, True)], ids=['input', 'weight'])
def test_the_second_derivative_of_one_alone(wanted):
    """It is that of the equation, and None for what is not asked for; of a computed input it is not counted twice."""
    x, weight, geometry = make(GEOMETRIES['3x3 strided'])
    x.requires_grad_(wanted[0]), weight.requires_grad_(wanted[1])
    seconds = []
    for function in (involution2d, literal):
        leaves = [tensor for tensor, need in zip((x, weight), wanted) if need]
        gradients = torch.autograd.grad(function(x.exp(), weight.exp(), **geometry).square().sum(), leaves,
                                        create_graph=True)
        seconds.append(torch.autograd.grad(gradients[0].square().sum(), leaves))
    torch.testing.assert_close(*seconds)


def test_a_compiled_one_says_where_it_ends():
    """Where torch cannot differentiate it, it says so: no gradient is left out in silence."""
    x, weight, geometry = make(GEOMETRIES['3x3 strided'])

    def function(x: Tensor) -> Tensor:
        return involution2d(x, weight.detach(), **geometry).square().sum()

    gradient, = torch.autograd.grad(torch.compile(function, backend='aot_eager')(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match='double backward'):
        gradient.sum().backward()


def test_second_derivatives_in_bfloat16():
    x, weight, geometry = make(GEOMETRIES['3x3 strided'], dtype=torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    seconds = []
    for tensors in ((x, weight), exact):
        gradient, = torch.autograd.grad(involution2d(*tensors, **geometry).square().sum(), tensors[1],
                                        create_graph=True)
        seconds.append(torch.autograd.grad(gradient.sum(), tensors))
    for actual, wanted in zip(*seconds):
        assert actual.dtype == torch.bfloat16
        assert (actual - wanted).abs().max() < .02 * wanted.abs().max()


@pytest.mark.slow
def test_compiled():
    x, weight, geometry = make(GEOMETRIES['3x3 strided'], dtype=torch.float32)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return involution2d(2 * x, weight, **geometry).relu()

    expected = function(x, weight)
    actual = torch.compile(function, fullgraph=True)(x, weight)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual.square().sum(), (x, weight)),
                               torch.autograd.grad(expected.square().sum(), (x, weight)))


def test_meta_tensors():
    x, weight, geometry = make(GEOMETRIES['5x3 dilated'])
    y = involution2d(x.to('meta'), weight.to('meta'), **geometry)
    assert y.is_meta and y.shape == involution2d(x, weight, **geometry).shape


def test_no_copy_for_each_shift():
    """What it makes on any device is of the order of the tensors themselves, not k² times the input."""
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            sizes.append(made.numel())
            return made

    x, weight, geometry = make(((7, 7), (1, 1), (3, 3), (1, 1), (24, 24)), batch=4, groups=1, group_channels=16)
    call = Involution(x.detach(), weight.detach(), *geometry.values())
    with Watch():
        products.backward(call, products.forward(call), (True, True))
    assert sizes and max(sizes) <= max(weight.numel(), 2 * x.numel())


@pytest.mark.parametrize(('change', 'words'), [
    (lambda x, w: (x[0], w), r'input must be \[batch'),
    (lambda x, w: (x, w.flatten(2, 3)), r'weight must be \[batch'),
    (lambda x, w: (x, w[:1]), 'weight has kernels for a batch of 1'),
    (lambda x, w: (x[:, :5], w), 'the 3 groups of weight do not divide'),
    (lambda x, w: (x, w[..., :-1]), r'weight has kernels for 9×7 positions.* has 9×8'),
    (lambda x, w: (x, w[:, :0]), 'the 0 groups of weight do not divide'),
    (lambda x, w: (x[..., :1, :0], w[..., :1, :0]), r'input must not be smaller than the kernel: its size is 1×0'),
    (lambda x, w: (x.float(), w), 'input must have the dtype of weight'),
], ids=['input', 'weight', 'batch', 'groups', 'positions', 'no groups', 'size', 'dtype'])
def test_tensors_that_do_not_fit(change, words):
    x, weight, geometry = make(GEOMETRIES['7x7'])
    with pytest.raises(ValueError, match=words):
        involution2d(*change(x, weight), **geometry)


def test_int_arguments():
    x, weight, geometry = make(GEOMETRIES['3x3 strided'])
    assert torch.equal(involution2d(x, weight, stride=2, padding=1), involution2d(x, weight, **geometry))

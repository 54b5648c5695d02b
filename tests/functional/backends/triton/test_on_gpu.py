"""On a GPU: the kernels against the `grouped` plan and against unfold, at the sizes of real layers."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dynconv_mm.functional import enable_triton, involution2d
from dynconv_mm.functional.mixture_conv import MIXTURE_CONV, Mixture

pytest.importorskip('triton', '3.6', reason='the kernels need Triton 3.6 or newer, which this torch does not bring')
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

# batch, n, groups, channels, outputs, kernel size, stride, height and width
LAYERS = {
    'first 3x3 of ResNet': (8, 4, 1, 64, 64, 3, 1, 56),
    'last 3x3 of ResNet': (8, 4, 1, 512, 512, 3, 1, 7),
    '3x3 of stride 2': (8, 4, 1, 128, 128, 3, 2, 57),
    'last 1x1 of ResNet': (8, 4, 1, 2048, 512, 1, 1, 7),
    'one kernel': (8, 1, 1, 256, 256, 3, 1, 14),
    'depthwise of MobileNetV2': (8, 4, 96, 96, 96, 3, 2, 112),
}


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)


def triton_mixture_conv2d(m: Mixture) -> Tensor:
    with enable_triton():
        return MIXTURE_CONV(m, 'triton')


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= tolerance, f'{what}: {error}'


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-4), (torch.bfloat16, .03)], ids=str)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('layer', LAYERS)
def test_mixture_conv(layer, memory_format, dtype, tolerance):
    batch, n, groups, channels, outputs, k, stride, size = LAYERS[layer]
    torch.manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device='cuda').to(dtype).requires_grad_()

    def attention(length: int) -> Tensor:
        return torch.rand(batch, length, device='cuda').to(dtype).requires_grad_()

    x = random(batch, channels, size, size).detach().contiguous(memory_format=memory_format).requires_grad_()
    m = Mixture(x, random(n, outputs, channels // groups, k, k), random(outputs), attention(n), attention(k * k),
                attention(channels), attention(outputs), (stride, stride), (k // 2, k // 2), (1, 1), groups, True)
    # the same values in float64: in bfloat16 `grouped` itself rounds as much
    exact = Mixture(*(t.detach().double().requires_grad_() for t in m[:7]), *m[7:])
    y, expected = triton_mixture_conv2d(m), MIXTURE_CONV(exact, 'grouped')
    assert y.is_contiguous(memory_format=memory_format)
    assert_close(y, expected, tolerance, 'output')
    upstream = torch.randn_like(y)
    gradients = torch.autograd.grad(y, m[:7], upstream)
    for name, gradient, expected_gradient in zip(
            m._fields, gradients, torch.autograd.grad(expected, exact[:7], upstream.double())):
        assert_close(gradient, expected_gradient, tolerance, f'gradient of {name}')


def test_the_same_call_gives_the_same_bits():
    x = torch.randn(16, 64, 56, 56, device='cuda')
    weight, attention = (torch.randn(*shape, device='cuda', requires_grad=True) for shape in ((4, 64, 64, 3, 3),
                                                                                             (16, 4)))
    m = Mixture(x, weight, None, attention, None, None, None, (1, 1), (1, 1), (1, 1), 1, True)
    first, second = (torch.autograd.grad(triton_mixture_conv2d(m).square().sum(), (weight, attention))
                     for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_offsets_beyond_32_bits():
    """The second sample starts after 2^31 elements."""
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip('needs 12 GiB of free GPU memory')
    x = torch.empty(2**31 + 8 * 5 * 5, dtype=torch.bfloat16, device='cuda').as_strided(
        (2, 8, 5, 5), (2**31, 25, 5, 1))
    x.copy_(torch.randn(2, 8, 5, 5))
    weight = torch.randn(1, 8, 8, 3, 3, device='cuda', dtype=torch.bfloat16)
    y = triton_mixture_conv2d(Mixture(x, weight, None, None, None, None, None, (1, 1), (1, 1), (1, 1), 1, True))
    assert_close(y, F.conv2d(x.contiguous().double(), weight[0].double(), padding=1), .03, 'output')


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-4), (torch.bfloat16, .03)], ids=str)
@pytest.mark.parametrize(('channels', 'size', 'stride'), [(64, 56, 1), (512, 7, 1), (128, 57, 2)])
def test_involution(channels, size, stride, dtype, tolerance):
    torch.manual_seed(0)
    out, groups = (size - 1) // stride + 1, channels // 16
    x = torch.randn(4, channels, size, size, device='cuda').to(dtype).requires_grad_()
    weight = torch.randn(4, groups, 7, 7, out, out, device='cuda').to(dtype).requires_grad_()
    with enable_triton():
        y = involution2d(x, weight, stride=stride, padding=3)
        upstream = torch.randn_like(y)
        gradients = torch.autograd.grad(y, (x, weight), upstream)
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    columns = F.unfold(exact[0], 7, 1, 3, stride).view(4, groups, 16, 7, 7, out, out)
    expected = (exact[1][:, :, None] * columns).sum((3, 4)).flatten(1, 2)
    assert_close(y, expected, tolerance, 'output')
    for name, gradient, expected_gradient in zip(('input', 'weight'), gradients,
                                                 torch.autograd.grad(expected, exact, upstream.double())):
        assert_close(gradient, expected_gradient, tolerance, f'gradient of {name}')

"""The kernels compute ODConv's Eq. 2 and its gradients, and fit into torch as a convolution does."""
from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dynconv_mm.functional import PLANS, enable_triton, mixture_conv2d
from dynconv_mm.functional.batch_norm import BatchNorm
from dynconv_mm.functional.mixture_conv import MIXTURE_CONV, Mixture

pytest.importorskip('triton', '3.6', reason='the kernels need Triton 3.6 or newer, which this torch does not bring')

from dynconv_mm.functional.backends.triton import mixture_conv

LAYOUTS = {
    'contiguous': lambda t: t,
    'channels_last': lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
    'transposed': lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    'strided': lambda t: torch.stack((t, t), -1)[..., 0],
}
TENSORS = Mixture._fields[:7]


def reference(m: Mixture) -> Tensor:
    """y_b = (Σ_i α_w · α_s · α_c · α_f · W_i) * x_b + bias, a sample at a time."""
    n, out_channels, group_channels, *kernel = m.weight.shape
    samples = []
    for b, x in enumerate(m.input):

        def of_sample(attention: Tensor | None, length: int, b: int = b) -> Tensor:
            return m.weight.new_ones(n, length) if attention is None else attention[b].expand(n, length)

        spatial = of_sample(m.spatial_attention, kernel[0] * kernel[1]).reshape(n, 1, 1, *kernel)
        channel = of_sample(m.channel_attention, len(x)).reshape(n, m.groups, 1, group_channels, 1, 1)
        channel = channel.expand(-1, -1, out_channels // m.groups, -1, -1, -1).reshape(n, -1, group_channels, 1, 1)
        filter_ = of_sample(m.filter_attention, out_channels).reshape(n, -1, 1, 1, 1)
        weight = of_sample(None if m.kernel_attention is None else m.kernel_attention[..., None], 1)
        mixed = (weight.reshape(n, 1, 1, 1, 1) * spatial * channel * filter_ * m.weight).sum(0)
        samples.append(F.conv2d(x, mixed, m.bias, m.stride, m.padding, m.dilation, m.groups))
    return torch.stack(samples)


class Case(NamedTuple):
    """A call: its sizes, and which attentions there are ('absent', 'shared' by the kernels or each kernel's 'own')."""

    batch: int = 2
    n: int = 3
    groups: int = 2
    group_channels: int = 3
    group_outputs: int = 2
    kernel: tuple[int, int] = (3, 1)
    size: tuple[int, int] = (5, 4)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 0)
    dilation: tuple[int, int] = (1, 1)
    kernel_attention: str = 'own'
    spatial_attention: str = 'shared'
    channel_attention: str = 'shared'
    filter_attention: str = 'shared'
    bias: bool = True
    layout: str = 'contiguous'

    def make_mixture(self, dtype: torch.dtype = torch.float64, device: str = 'cpu') -> Mixture:
        generator = torch.Generator().manual_seed(0)

        def random(*size: int) -> Tensor:
            tensor = torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype)
            return LAYOUTS[self.layout](tensor).detach().requires_grad_()

        def attention(kind: str, length: int) -> Tensor | None:
            own = (self.n, ) if kind == 'own' else ()
            return None if kind == 'absent' else random(self.batch, *own, length)

        channels, out_channels = self.groups * self.group_channels, self.groups * self.group_outputs
        return Mixture(
            random(self.batch, channels, *self.size),
            random(self.n, out_channels, self.group_channels, *self.kernel),
            random(out_channels) if self.bias else None,
            random(self.batch, self.n) if self.kernel_attention != 'absent' else None,
            attention(self.spatial_attention, self.kernel[0] * self.kernel[1]),
            attention(self.channel_attention, channels),
            attention(self.filter_attention, out_channels),
            self.stride, self.padding, self.dilation, self.groups,
            'own' not in (self.spatial_attention, self.channel_attention, self.filter_attention))


def triton_mixture_conv2d(m: Mixture) -> Tensor:
    with enable_triton():
        return MIXTURE_CONV(m, 'triton')


@st.composite
def cases(draw) -> Case:
    """Shapes that the interpreter is through with in a second: it computes an operation in 0.1 ms."""
    kernel = draw(st.sampled_from([(1, 1), (3, 1), (1, 3), (5, 1), (1, 7), (3, 3)]))
    stride, dilation, padding = (draw(st.tuples(*[st.sampled_from(values)] * 2)) for values in (
        (1, 2, 3), (1, 2), (0, 1, 3)))
    groups, group_channels, group_outputs = draw(st.one_of(
        st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)),
        st.tuples(st.integers(2, 3), st.just(1), st.just(1))))  # depthwise
    batch = draw(st.integers(1, max(1, min(5, 12 // (groups * kernel[0] * kernel[1])))))
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 4))
                 for k, p, d in zip(kernel, padding, dilation))
    return Case(batch, draw(st.integers(1, 8)), groups, group_channels, group_outputs, kernel, size, stride, padding,
                dilation, *(draw(st.sampled_from(['absent', 'shared', 'own'])) for _ in range(4)),
                draw(st.booleans()), draw(st.sampled_from(list(LAYOUTS))))


def differentiable(m: Mixture) -> dict[str, Tensor]:
    return {name: getattr(m, name) for name in TENSORS if getattr(m, name) is not None}


def assert_agree(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    error = (actual.double() - expected).abs().max()
    assert error <= tolerance * (1 + expected.abs().max()), f'{what}: {error}'


def check(case: Case, device: str, dtype: torch.dtype = torch.float64, tolerance: float = 1e-10) -> None:
    """Outputs and all gradients, against the equation in float64 at the same (rounded) values."""
    m = case.make_mixture(dtype, device)
    exact = m._replace(**{name: value.detach().double().requires_grad_() for name, value in differentiable(m).items()})
    actual, expected = triton_mixture_conv2d(m), reference(exact)
    assert actual.dtype == dtype
    assert_agree(actual, expected, tolerance, 'output')
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    gradients = torch.autograd.grad(actual, list(differentiable(m).values()), LAYOUTS[case.layout](upstream))
    expected_gradients = torch.autograd.grad(expected, list(differentiable(exact).values()), upstream.double())
    for name, gradient, expected_gradient in zip(differentiable(m), gradients, expected_gradients):
        assert gradient.dtype == dtype
        assert_agree(gradient, expected_gradient, tolerance, f'gradient of {name}')


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_equation(device, case):
    check(case, device)


@pytest.mark.parametrize('kind', ['absent', 'shared', 'own'])
@pytest.mark.parametrize('others', ['absent', 'own'])
def test_kinds_of_attention(device, kind, others):
    """Each kind beside the others' most different ones; channels and outputs enough for a matrix product."""
    check(Case(1, 3, 1, 6, 5, (1, 2), (3, 4), channel_attention=kind, filter_attention=others, padding=(0, 0)), device)
    check(Case(1, 3, 1, 6, 5, (1, 2), (3, 4), channel_attention=others, filter_attention=kind, padding=(0, 0)), device)


@pytest.mark.parametrize(('batch', 'area'), [(18, (1, 1)), (2, (1, 2))])
def test_sizes_beyond_one_block(device, monkeypatch, batch, area):
    """More channels, outputs, pixels and samples than one program takes, none of them a multiple of a block."""
    monkeypatch.setattr(mixture_conv, 'KERNEL_BYTES', 17 * 67 * 70 * 8)
    monkeypatch.setattr(mixture_conv, '_recipes', {})
    check(Case(batch, 2, 1, 67, 70, area, (9, 9), padding=(0, 1)), device)


@pytest.mark.parametrize('area', [(1, 1), (3, 3)])
def test_depthwise_with_more_pixels_than_a_block(device, area):
    check(Case(1, 2, 2, 1, 1, area, (33, 34), padding=(area[0] // 2, ) * 2), device)


@pytest.mark.parametrize(('dtype', 'tolerance'), [
    (torch.float32, 1e-4), (torch.bfloat16, .02), (torch.float16, 3e-3)], ids=str)
@pytest.mark.parametrize('group_channels', [1, 6])
def test_types(device, monkeypatch, dtype, tolerance, group_channels):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    check(Case(group_channels=group_channels, group_outputs=group_channels), device, dtype, tolerance)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(device, dtype):
    """Products in autocast's type, gradients in the tensors' own; the attentions stay in float32."""
    m = Case(1, group_channels=6, group_outputs=5).make_mixture(torch.float32, device)
    exact = reference(m._replace(**{name: value.double() for name, value in differentiable(m).items()}))
    with torch.autocast(device, dtype):
        y = triton_mixture_conv2d(m)
    assert y.dtype == dtype
    assert_agree(y, exact, .02, 'output')
    gradients = torch.autograd.grad(y.float().sum(), list(differentiable(m).values()))
    expected = torch.autograd.grad(exact.sum(), list(differentiable(m).values()))
    for name, gradient, expected_gradient in zip(differentiable(m), gradients, expected):
        assert gradient.dtype == torch.float32
        assert_agree(gradient, expected_gradient.double(), .02, f'gradient of {name}')


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_memory_format(device, memory_format):
    m = Case(kernel=(1, 1), padding=(0, 0)).make_mixture(device=device)
    x = m.input.detach().contiguous(memory_format=memory_format).requires_grad_()
    y = triton_mixture_conv2d(m._replace(input=x))
    assert y.is_contiguous(memory_format=memory_format)
    gradient, = torch.autograd.grad(y.sum(), x)
    assert gradient.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize('names', [['input'], ['weight'], ['bias'], ['filter_attention', 'input']], ids=','.join)
def test_only_the_gradients_that_are_asked_for(device, names):
    m = Case(1).make_mixture(device=device)
    m = m._replace(**{name: value.detach().requires_grad_(name in names) for name, value in differentiable(m).items()})
    tensors = [getattr(m, name) for name in names]
    actual = torch.autograd.grad(triton_mixture_conv2d(m).sum(), tensors)
    for name, gradient, expected in zip(names, actual, torch.autograd.grad(reference(m).sum(), tensors)):
        assert_agree(gradient, expected, 1e-10, name)


@pytest.mark.parametrize('kinds', [('shared', 'own'), ('own', 'shared'), ('absent', 'absent')], ids='-'.join)
def test_second_derivatives(device, kinds):
    m = Case(1, channel_attention=kinds[0], filter_attention=kinds[1]).make_mixture(device=device)
    tensors = list(differentiable(m).values())

    def gradients_of_gradients(y: Tensor) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), tensors)

    for actual, expected in zip(gradients_of_gradients(triton_mixture_conv2d(m)), gradients_of_gradients(reference(m))):
        assert_agree(actual, expected, 1e-10, 'gradient of a gradient')


def test_as_a_plan(device):
    m = Case(2).make_mixture(device=device)
    triton = PLANS['triton']
    assert triton.refuses(m).startswith('a call before enable_triton()')
    arguments = m._asdict()
    del arguments['shares_attention']
    with enable_triton():
        assert triton.refuses(m) is None
        assert 'not on a GPU' in triton.refuses(m._replace(input=m.input.to(torch.int32)))
        actual = mixture_conv2d(**arguments, plan='triton')
        assert (MIXTURE_CONV.choose(m, 'auto', True) is triton) == (device == 'cuda')
    assert_agree(actual, reference(m), 1e-10, 'output')
    with pytest.raises(ValueError, match="'triton' cannot serve a call before enable_triton"):
        mixture_conv2d(**arguments, plan='triton')


def test_inputs_smaller_than_the_kernel_are_refused(device):
    m = Case(size=(2, 4), padding=(0, 0)).make_mixture(device=device)
    with pytest.raises(ValueError, match='input must not be smaller than the kernel'):
        triton_mixture_conv2d(m)


@pytest.mark.parametrize(('layout', 'area', 'stride'), [
    ('channels_last', (3, 3), (1, 1)), ('contiguous', (3, 3), (2, 1)), ('channels_last', (1, 1), (1, 2)),
    ('contiguous', (1, 1), (1, 1))])
@pytest.mark.parametrize('spatial', ['shared', 'absent'])
def test_one_kernel_that_is_larger_than_the_features(device, layout, area, stride, spatial):
    """No sample gets a kernel of its own: the attentions scale the features and the sums."""
    case = Case(3, 1, 1, 18, 19, area, (3, 2), stride, (area[0] // 2, ) * 2, kernel_attention='absent', layout=layout,
                spatial_attention=spatial)
    m = case.make_mixture()
    assert mixture_conv.takes_one_kernel(m.weight[0].numel(), m.input)
    check(case, device)


def test_kernels_of_some_samples_at_a_time(device, monkeypatch):
    monkeypatch.setattr(mixture_conv, 'KERNEL_BYTES', 2 * 4 * 3 * 3 * 8)  # two kernels
    monkeypatch.setattr(mixture_conv, '_recipes', {})
    check(Case(5, group_channels=3, group_outputs=2), device)
    assert {recipe.samples for recipe in mixture_conv._recipes.values()} == {1, 2}


@pytest.mark.parametrize('group_channels', [1, 3])
@pytest.mark.parametrize('affine', [True, False])
@torch.no_grad()
def test_norm(device, affine, group_channels):
    """Applied to the sums before they are stored; where gradients are recorded, folded into the attentions."""
    case = Case(group_channels=group_channels, group_outputs=group_channels)
    m = case.make_mixture(torch.float64 if device == 'cpu' else torch.float32, device)
    mean, var, *of_norm = (torch.rand(m.weight.shape[1], dtype=m.weight.dtype, device=device) + .5 for _ in range(4))
    norm = BatchNorm(mean, var, *(of_norm if affine else (None, None)), .1)
    expected = F.batch_norm(reference(m), *norm[:4], eps=.1)
    assert_agree(triton_mixture_conv2d(m._replace(norm=norm)), expected, 1e-10 if device == 'cpu' else 1e-4, 'output')
    with torch.enable_grad():
        y = triton_mixture_conv2d(m._replace(norm=norm))
        assert_agree(y, expected, 1e-10 if device == 'cpu' else 1e-4, 'output with gradients')
        assert all(gradient.any() for gradient in torch.autograd.grad(y.square().sum(), differentiable(m).values()))


def test_out_of_memory_under_autocast(device, monkeypatch):
    """What follows takes tensors of one type."""
    def run_out(*arguments):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    m = Case(group_channels=6, group_outputs=5).make_mixture(torch.float32, device)
    monkeypatch.setattr(mixture_conv, 'forward', run_out)
    with torch.autocast(device, torch.bfloat16), torch.no_grad(), pytest.warns(UserWarning, match='out of memory'):
        assert_agree(triton_mixture_conv2d(m), reference(m), .03, 'output')


def test_second_derivatives_under_autocast(device):
    m = Case(1, group_channels=6, group_outputs=5).make_mixture(torch.float32, device)
    with torch.autocast(device, torch.bfloat16):
        y = triton_mixture_conv2d(m)
    gradient, = torch.autograd.grad(y.float().square().sum(), m.weight, create_graph=True)
    second, = torch.autograd.grad(gradient.square().sum(), m.input)
    assert second.any() and second.isfinite().all()

"""The Numba kernels give the numbers of the operators that they stand for, and keep out of the way of all else."""
from __future__ import annotations

import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dynconv_mm.functional import fused, mixture_conv2d, use_plan
from dynconv_mm.functional.fused import (
    Attention,
    Norm,
    attended_conv2d,
    fused_attention,
    fused_kernels,
    fused_scale_and_shift,
)
from dynconv_mm.functional.numba import enable_numba, numba_kernels, pointers
from dynconv_mm.functional.numba import serving as serving_calls
from dynconv_mm.layers import DyConv2d, ODConv2d
from dynconv_mm.layers.conv_norm import conv_norm

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request) -> torch.dtype:
    return request.param


def assert_close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None, 'the kernels did not serve'
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= DTYPES[expected.dtype] * max(1, expected.abs().max())


def make_attention(channels: int, hidden: int, logits: int, norm: str = 'affine', dtype: torch.dtype = torch.float64
                   ) -> Attention:
    """One with random numbers; ``norm`` is 'affine', 'plain' or 'none', which has a bias."""
    mean, gain, shift = torch.randn(3, hidden, dtype=dtype)
    variance = torch.rand(hidden, dtype=dtype) + .1
    parts = dict(affine=Norm(mean, variance, gain, shift, 1e-3), plain=Norm(mean, variance, None, None, 1e-3),
                 none=Norm(None, None, None, shift, 0.))
    return Attention(torch.randn(hidden, channels, 1, 1, dtype=dtype), parts[norm],
                     torch.randn(logits, hidden, 1, 1, dtype=dtype), torch.randn(logits, dtype=dtype),
                     torch.tensor(2.5, dtype=dtype))


def attend(x: Tensor, attention: Attention, kernel_num: int) -> Tensor:
    """The equation."""
    fc, (mean, variance, gain, shift, eps), heads, bias, temperature = attention
    hidden = x.mean((2, 3)) @ fc.flatten(1).T
    if mean is not None:
        hidden = (hidden - mean) / (variance + eps).sqrt()
    hidden = hidden * (1 if gain is None else gain) + (0 if shift is None else shift)
    logits = (hidden.clamp(min=0) @ heads.flatten(1).T + bias) / temperature
    cut = logits.shape[1] - kernel_num
    return torch.cat([logits[:, :cut].sigmoid(), logits[:, cut:].softmax(1)], 1)


def normalize(y: Tensor, norm: Norm) -> Tensor:
    return F.batch_norm(y, norm.mean, norm.variance, norm.gain, norm.shift, eps=norm.eps)


# Each by itself.


@pytest.mark.parametrize('norm', ['affine', 'plain', 'none'])
@pytest.mark.parametrize('kernel_num', [0, 4, 11])
@pytest.mark.parametrize('batch', [1, 3])
def test_attention(dtype, norm, kernel_num, batch):
    x, attention = torch.randn(batch, 5, 7, 6, dtype=dtype), make_attention(5, 4, 11, norm, dtype)
    expected = attend(x, attention, kernel_num)
    assert_close(fused_attention(x, attention, kernel_num), expected)
    assert_close(fused_attention(x.to(memory_format=torch.channels_last), attention, kernel_num), expected)
    assert_close(fused_attention(x.transpose(2, 3), attention, kernel_num), expected)


def test_saturated_attentions(dtype):
    attention = make_attention(5, 4, 11, dtype=dtype)._replace(temperature=torch.tensor(1e-3, dtype=dtype))
    x = torch.randn(2, 5, 7, 6, dtype=dtype)
    assert_close(fused_attention(x, attention, 4), attend(x, attention, 4))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_a_number_stays_to_be_seen(dtype, value):
    x, attention = torch.randn(1, 5, 7, 6, dtype=dtype), make_attention(5, 4, 11, dtype=dtype)
    x[0, 2, 3, 3] = value
    attention.fc[1, 2] = value  # inf - inf
    actual, expected = fused_attention(x, attention, 4), attend(x, attention, 4)
    assert expected.isnan().any() and torch.equal(actual.isnan(), expected.isnan())


@pytest.mark.parametrize('affine', [True, False])
def test_scale_and_shift(dtype, affine):
    norm = make_attention(5, 7, 1, 'affine' if affine else 'plain', dtype).norm
    x = torch.randn(2, 7, 3, 4, dtype=dtype)
    scale, shift = fused_scale_and_shift(norm)
    assert_close(x * scale[:, None, None] + shift[:, None, None], normalize(x, norm))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_kernels(data):
    batch, n, groups, filters, channels = (data.draw(st.integers(1, high)) for high in (4, 9, 3, 5, 4))
    area = data.draw(st.sampled_from([(1, 1), (3, 3), (1, 5)]))
    given = [n > 1 or data.draw(st.booleans()), *(data.draw(st.booleans()) for _ in range(3))]
    weight = torch.randn(n, groups * filters, channels, *area, dtype=torch.float64)
    # parts of a longer vector, as the heads' are
    sizes = n, area[0] * area[1], groups * channels, groups * filters
    attentions = [part if there else None
                  for part, there in zip(torch.rand(batch, sum(sizes), dtype=torch.float64).split(sizes, 1), given)]
    kernel, spatial, channel, filter_ = attentions
    expected = torch.einsum('bn,nfchw->bfchw', torch.ones(batch, 1).double() if kernel is None else kernel, weight)
    if spatial is not None:
        expected = expected * spatial.view(batch, 1, 1, *area)
    if channel is not None:
        of_group = channel.view(batch, groups, 1, channels).expand(-1, -1, filters, -1)
        expected = expected * of_group.reshape(batch, -1, channels, 1, 1)
    if filter_ is not None:
        expected = expected * filter_.view(batch, -1, 1, 1, 1)
    assert_close(fused_kernels(batch, weight, *attentions, groups), expected)


@pytest.mark.parametrize('heads', [('channel', 'filter', 'spatial', 'kernel'), ('kernel',), ('filter', 'spatial'),
                                   ('channel',), ('spatial', 'kernel')], ids='-'.join)
@pytest.mark.parametrize('norm', ['affine', 'plain', None])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', [(8, 6, (3, 3), 2), (6, 6, (3, 3), 6), (5, 7, (1, 1), 1), (4, 3, (5, 3), 1)], ids=str)
def test_convolution_of_one_sample(dtype, heads, norm, bias, shape, monkeypatch):
    in_channels, out_channels, kernel_size, groups = shape
    geometry = (2, 1), (1, 2), (1, 2), groups
    n = 3 if 'kernel' in heads else 1
    sizes = dict(channel=in_channels, filter=out_channels, spatial=kernel_size[0] * kernel_size[1], kernel=n)
    starts, logits = {}, 0
    for head in heads:
        starts[head], logits = logits, logits + sizes[head]
    x = torch.randn(1, in_channels, 9, 8, dtype=dtype)
    attention = make_attention(in_channels, 4, logits, dtype=dtype)
    weight = torch.randn(n, out_channels, in_channels // groups, *kernel_size, dtype=dtype)
    bias = torch.randn(out_channels, dtype=dtype) if bias else None
    norm = None if norm is None else make_attention(1, out_channels, 1, norm, dtype).norm
    parts = attend(x, attention, n if 'kernel' in heads else 0)
    expected = mixture_conv2d(x, weight, bias, stride=geometry[0], padding=geometry[1], dilation=geometry[2],
                              groups=groups, plan='grouped',
                              **{f'{head}_attention': parts[:, starts[head]:starts[head] + sizes[head]]
                                 for head in heads})
    if norm is not None:
        expected = normalize(expected, norm)
    assert_close(attended_conv2d(x, attention, starts, weight, bias, norm, *geometry), expected)
    monkeypatch.setattr(fused, 'LARGE_KERNEL', -10**9)  # now all are large
    actual = attended_conv2d(x, attention, starts, weight, bias, norm, *geometry)
    if n == 1 and 'spatial' in heads:
        assert actual is None
    else:
        assert_close(actual, expected)


# In the layers.


LAYERS = {
    'four kernels': lambda: ODConv2d(6, 4, 3, padding=1, kernel_num=4),
    'one kernel': lambda: ODConv2d(6, 4, 3, stride=2, padding=1, kernel_num=1, bias=False),
    'pointwise': lambda: ODConv2d(6, 4, 1, kernel_num=2),
    'depthwise': lambda: ODConv2d(6, 6, 3, padding=1, groups=6, kernel_num=2, bias=False),
    'groups': lambda: ODConv2d(6, 4, 3, groups=2, dilation=2, padding='same', kernel_num=4),
    'reflected': lambda: ODConv2d(6, 4, 3, padding=1, padding_mode='reflect'),
    'own attentions': lambda: ODConv2d(6, 4, 3, share_attention=False),
    'softmax': lambda: ODConv2d(6, 4, 3, spatial_activation='softmax'),
    'pooled to 2': lambda: ODConv2d(6, 4, 3, spatial_pool_size=2),
    'layer norm': lambda: ODConv2d(6, 4, 3, norm_cfg=dict(type='LN')),
    'no norm': lambda: ODConv2d(6, 4, 3, norm_cfg=None),
    'kernels without attention': lambda: ODConv2d(6, 4, 3, attentions=['filter'], kernel_num=3),
    'DyConv': lambda: DyConv2d(6, 4, 3, padding=1),
}


def make_random(module: nn.Module) -> nn.Module:
    """In eval mode, with no number as it begins."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(.5, 1.5)
    return module.eval()


@pytest.fixture(params=LAYERS)
def layer(request) -> nn.Module:
    return make_random(LAYERS[request.param]())


@pytest.mark.parametrize('batch', [0, 1, 3])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_layers(dtype, layer, batch, memory_format):
    layer = layer.to(dtype).to(memory_format=memory_format)
    norm = nn.BatchNorm2d(layer.out_channels, dtype=dtype).eval()
    norm.running_var.uniform_(.5, 1.5)
    x = torch.randn(batch, 6, 9, 8, dtype=dtype).to(memory_format=memory_format)
    with enable_numba(False):
        expected, expected_norm = layer(x), conv_norm(layer, norm, x)
    actual, actual_norm = layer(x), conv_norm(layer, norm, x)
    assert actual.shape == expected.shape
    if batch:
        assert_close(actual, expected)
        assert_close(actual_norm, expected_norm)
        assert actual.is_contiguous(memory_format=memory_format) == expected.is_contiguous(memory_format=memory_format)


def test_one_result_does_not_overwrite_another():
    """All that is kept from call to call lies behind the convolution."""
    layer = make_random(ODConv2d(6, 4, 3))
    first, second = torch.randn(2, 1, 6, 9, 8)
    y = layer(first)
    before = y.clone()
    layer(second)
    assert torch.equal(y, before)
    attentions = layer.compute_attentions(first)
    before = {name: value.clone() for name, value in attentions.items()}
    layer.compute_attentions(second)
    assert all(torch.equal(attentions[name], value) for name, value in before.items())


# Out of the way.


def serving(layer: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The kernels that run in a call of a layer, whose result must not depend on them."""
    calls = []

    class Watched:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(kernels, name)

    kernels = numba_kernels('kernels')
    with enable_numba(False):
        expected = layer(x)
    for module in (fused, serving_calls):
        monkeypatch.setattr(module, 'numba_kernels', lambda name: Watched())
    torch.testing.assert_close(layer(x), expected)
    return set(calls)


@pytest.fixture
def odconv() -> ODConv2d:
    return ODConv2d(6, 4, 3).eval()


def test_serves(odconv, monkeypatch):
    assert serving(odconv, torch.randn(1, 6, 9, 8), monkeypatch)
    assert serving(odconv, torch.randn(3, 6, 9, 8), monkeypatch)
    assert serving(DyConv2d(6, 4, 3), torch.randn(3, 6, 9, 8), monkeypatch)


@pytest.mark.parametrize('batch', [1, 3])
def test_with_gradients(odconv, batch, monkeypatch):
    monkeypatch.setattr('dynconv_mm.functional.plans.KEPT_ELEMENTS', 0)  # not within an autograd function either
    with torch.enable_grad():
        assert not serving(odconv, torch.randn(batch, 6, 9, 8), monkeypatch)


def test_half_precision(odconv, monkeypatch):
    assert not serving(odconv.bfloat16(), torch.randn(1, 6, 9, 8, dtype=torch.bfloat16), monkeypatch)


@pytest.mark.parametrize('shape', [(1, 6, 9, 8), (3, 6, 9, 8)], ids=str)
def test_autocast(shape, monkeypatch):
    monkeypatch.setattr(fused, 'LARGE_KERNEL', -10**9)
    layer = ODConv2d(6, 4, 1, kernel_num=1).eval()
    x = torch.randn(shape)
    with torch.autocast('cpu', torch.bfloat16):
        with enable_numba(False):
            expected = layer(x)
        actual = layer(x)
    assert actual.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected)


def test_somebody_watches_the_operators(odconv, monkeypatch):
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    with Watch():
        assert not serving(odconv, torch.randn(1, 6, 9, 8), monkeypatch)


@pytest.mark.parametrize('plan', ['grouped', 'fold'])
def test_a_plan_that_was_asked_for_is_taken(odconv, plan, monkeypatch):
    """What makes the kernels serves `fold` too."""
    one = torch.randn(1, 6, 9, 8)
    convolutions = []
    monkeypatch.setattr('dynconv_mm.layers.odconv.attended_conv2d', lambda *args: convolutions.append(args))
    odconv(one)
    assert len(convolutions) == 1
    with use_plan(plan):
        odconv(one)
    odconv.plan = plan
    odconv(one)
    assert len(convolutions) == 1


@pytest.mark.parametrize('part', ['attention', 'attention.fc', 'attention.bn', 'attention.heads'])
def test_hooks_see_what_they_are_for(odconv, part):
    seen = []
    odconv.get_submodule(part).register_forward_hook(lambda *args: seen.append(args))
    odconv(torch.randn(1, 6, 9, 8))
    odconv(torch.randn(2, 6, 9, 8))
    assert len(seen) == 2


def test_a_subclass_with_attentions_of_its_own():
    class Halved(ODConv2d):
        def compute_attentions(self, x: Tensor) -> dict[str, Tensor]:
            return {name: value / 2 for name, value in super().compute_attentions(x).items()}

    whole = ODConv2d(6, 4, 3, bias=False, attentions=['filter'], kernel_num=1).eval()
    halved = Halved(6, 4, 3, bias=False, attentions=['filter'], kernel_num=1).eval()
    halved.load_state_dict(whole.state_dict())
    x = torch.randn(1, 6, 9, 8)
    assert_close(halved(x) * 2, whole(x))


def test_large_products_are_left_to_the_threads_of_torch(odconv, monkeypatch):
    x = torch.randn(1, 6, 9, 8)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    assert serving(odconv, x, monkeypatch)
    monkeypatch.setattr(fused, 'SERIAL_PRODUCTS', 10)
    assert not serving(odconv, x, monkeypatch)


def test_a_parameter_that_does_not_fit_is_torchs_to_refuse(odconv):
    with pytest.raises((ValueError, RuntimeError), match='7|channels'):
        odconv(torch.randn(1, 7, 9, 8))
    for name in ('attention.bn.weight', 'attention.fc.weight', 'attention.heads.bias'):
        broken = ODConv2d(6, 4, 3).eval()
        broken.get_parameter(name).data = broken.get_parameter(name).data[:3]
        with pytest.raises(RuntimeError):
            broken(torch.randn(1, 6, 9, 8))


def test_parts_of_different_types(odconv):
    odconv.attention.bn.double()
    with pytest.raises(RuntimeError), enable_numba(False):
        odconv(torch.randn(1, 6, 9, 8))
    with pytest.raises(RuntimeError):
        odconv(torch.randn(1, 6, 9, 8))


def test_a_numba_that_does_not_work(odconv, monkeypatch):
    """One warning, and the numbers all the same."""
    monkeypatch.setitem(sys.modules, 'dynconv_mm.functional.numba.kernels', None)
    monkeypatch.delattr('dynconv_mm.functional.numba.kernels')
    numba_kernels.cache_clear()
    x = torch.randn(1, 6, 9, 8)
    with enable_numba(False):
        expected = odconv(x)
    with pytest.warns(UserWarning, match='without its Numba kernels.*DYNCONV_MM_NUMBA=0'):
        torch.testing.assert_close(odconv(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        odconv(x)
    numba_kernels.cache_clear()


def test_without_a_folder_for_machine_code(monkeypatch):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError('cannot cache function: no locator available')
        return lambda function: function

    monkeypatch.setattr(pointers, 'njit', njit)
    assert pointers.compiled(len) is len

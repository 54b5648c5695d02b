"""The compiled functions give the numbers of the reference, and keep out of the way of all else."""
from __future__ import annotations

import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dynconv_mm.functional import Head, attention, enable_numba, use_plan
from dynconv_mm.functional.backends import numba
from dynconv_mm.functional.backends.numba import load
from dynconv_mm.functional.mixture_conv import Mixture, sample_kernels
from dynconv_mm.layers import DyConv2d, ODConv2d
from dynconv_mm.layers.conv_norm import conv_norm
from dynconv_mm.layers.fully_connected import FullyConnected

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """The names of the compiled functions that run."""
    calls = []

    class Watched:
        def __init__(self, module):
            self.module = module

        def __getattr__(self, name):
            calls.append(name)
            return getattr(self.module, name)

    original = numba.load
    for module in (numba.attention, numba.depthwise, numba.mixture_conv):
        monkeypatch.setattr(module, 'load', lambda name: Watched(original(name)))
    return calls


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= DTYPES[expected.dtype] * max(1, expected.abs().max())


# Each by itself.


class Parts:
    """What makes attentions of five channels, with random numbers; ``norm`` is 'affine', 'plain' or None."""

    def __init__(self, norm: str | None, heads: dict[str, tuple[int, bool, int]], dtype: torch.dtype) -> None:
        self.fc = FullyConnected(5, 4, bias=norm is None).to(dtype)
        self.norm = None if norm is None else nn.BatchNorm1d(4, affine=norm == 'affine', eps=1e-3, dtype=dtype).eval()
        self.heads = {name: Head(FullyConnected(4, length).to(dtype), softmax, copies)
                      for name, (length, softmax, copies) in heads.items()}
        self.temperature = torch.tensor(2.5, dtype=dtype)
        modules = [self.fc, *([] if self.norm is None else [self.norm]), *(head.fc for head in self.heads.values())]
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand_like(tensor) + .1 if tensor is getattr(module, 'running_var', None)
                                 else torch.randn_like(tensor))

    def attend(self, x: Tensor) -> dict[str, Tensor]:
        return attention(x, 5, self.fc, self.norm, self.heads, self.temperature)

    def literally(self, x: Tensor) -> dict[str, Tensor]:
        """The equation."""
        hidden = x.mean((2, 3)) @ self.fc.weight.flatten(1).T
        if self.fc.bias is not None:
            hidden = hidden + self.fc.bias
        if self.norm is not None:
            hidden = (hidden - self.norm.running_mean) / (self.norm.running_var + self.norm.eps).sqrt()
            if self.norm.affine:
                hidden = hidden * self.norm.weight + self.norm.bias
        result = {}
        for name, (fc, softmax, copies) in self.heads.items():
            logits = (hidden.clamp(min=0) @ fc.weight.flatten(1).T + fc.bias) / self.temperature
            logits = logits.unflatten(1, (copies, -1)) if copies > 1 else logits
            result[name] = logits.softmax(-1) if softmax else logits.sigmoid()
        return result


HEADS = {
    'one sigmoid': dict(channel=(11, False, 1)),
    'one softmax': dict(kernel=(4, True, 1)),
    'several': dict(channel=(5, False, 1), filter=(6, False, 1), spatial=(9, True, 1), kernel=(4, True, 1)),
    'of each kernel': dict(filter=(6, False, 3), kernel=(3, True, 1)),
}


def check_attention(parts: Parts, x: Tensor, runs: list[str]) -> None:
    actual, expected = parts.attend(x), parts.literally(x)
    assert runs == ['attend'], 'the compiled function did not serve'
    assert list(actual) == list(expected)
    for name in expected:
        assert_close(actual[name], expected[name])
    runs.clear()


@pytest.mark.parametrize('norm', ['affine', 'plain', None])
@pytest.mark.parametrize('heads', HEADS)
@pytest.mark.parametrize('batch', [1, 3])
def test_attention(dtype, norm, heads, batch, runs):
    x, parts = torch.randn(batch, 5, 7, 6, dtype=dtype), Parts(norm, HEADS[heads], dtype)
    for features in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3)):
        check_attention(parts, features, runs)


def test_saturated_attentions(dtype, runs):
    parts = Parts('affine', HEADS['several'], dtype)
    parts.temperature.fill_(1e-3)
    check_attention(parts, torch.randn(2, 5, 7, 6, dtype=dtype), runs)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_a_number_stays_to_be_seen(dtype, value):
    x, parts = torch.randn(1, 5, 7, 6, dtype=dtype), Parts('affine', HEADS['several'], dtype)
    x[0, 2, 3, 3] = value
    parts.fc.weight[1, 2] = value  # inf - inf
    actual, expected = parts.attend(x), parts.literally(x)
    assert any(values.isnan().any() for values in expected.values())
    assert all(torch.equal(actual[name].isnan(), values.isnan()) for name, values in expected.items())


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
    x = torch.empty(batch, groups * channels, 7, 7, dtype=torch.float64)
    m = Mixture(x, weight, None, *attentions, (1, 1), (0, 0), (1, 1), groups, True)
    assert_close(numba.mixture_conv.make_kernels(m)[0].view_as(expected), expected)
    assert_close(sample_kernels(m), expected)


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


@pytest.fixture
def serving(runs):
    """The compiled functions that run in a call of a layer, whose result must not depend on them."""

    def run(layer: nn.Module, x: Tensor) -> set[str]:
        with enable_numba(False):
            expected = layer(x)
        runs.clear()
        torch.testing.assert_close(layer(x), expected)
        return set(runs)

    return run


@pytest.fixture
def odconv() -> ODConv2d:
    return ODConv2d(6, 4, 3).eval()


def test_serves(odconv, serving):
    assert serving(odconv, torch.randn(1, 6, 9, 8)) == {'attend', 'mix_and_scale'}
    assert 'attend' in serving(odconv, torch.randn(3, 6, 9, 8))
    assert 'attend' in serving(DyConv2d(6, 4, 3), torch.randn(3, 6, 9, 8))


@pytest.mark.parametrize('plan', ['auto', 'fold', 'per_sample'])
@pytest.mark.parametrize('batch', [1, 3])
def test_with_gradients(odconv, batch, serving, plan):
    with torch.enable_grad(), use_plan(plan):
        assert not serving(odconv, torch.randn(batch, 6, 9, 8))


def test_nothing_to_differentiate(odconv, serving):
    with torch.enable_grad():
        assert serving(odconv.requires_grad_(False), torch.randn(1, 6, 9, 8))


def test_half_precision(odconv, serving):
    assert not serving(odconv.bfloat16(), torch.randn(1, 6, 9, 8, dtype=torch.bfloat16))


@pytest.mark.parametrize('shape', [(1, 6, 9, 8), (3, 6, 9, 8)], ids=str)
def test_autocast(shape):
    layer = ODConv2d(6, 4, 1, kernel_num=1).eval()
    x = torch.randn(shape)
    with torch.autocast('cpu', torch.bfloat16):
        with enable_numba(False):
            expected = layer(x)
        actual = layer(x)
    assert actual.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected)


def test_somebody_watches_the_operators(odconv, serving):
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    with Watch():
        assert not serving(odconv, torch.randn(1, 6, 9, 8))


@pytest.mark.parametrize('plan', ['grouped', 'fold'])
def test_a_plan_that_was_asked_for_is_taken(odconv, plan, serving):
    one = torch.randn(1, 6, 9, 8)
    with use_plan(plan):
        assert 'mix_and_scale' not in serving(odconv, one)
    odconv.plan = plan
    assert 'mix_and_scale' not in serving(odconv, one)


@pytest.mark.parametrize('part', ['attention', 'attention.fc', 'attention.bn', 'attention.kernel_fc'])
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


def test_large_products_are_left_to_the_threads_of_torch(odconv, monkeypatch, serving):
    x = torch.randn(1, 6, 9, 8)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    assert serving(odconv, x)
    monkeypatch.setattr(numba.attention, 'SERIAL_PRODUCTS', 10)
    assert serving(ODConv2d(6, 4, 5, padding=2).eval(), x) == {'mix_and_scale'}


@pytest.mark.parametrize('groups', [1, 2, 6])
def test_filters_are_shared_out_to_threads(groups, monkeypatch, serving):
    """Stretches of filters that begin and end within a group."""
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 5)
    monkeypatch.setattr(numba.threads, 'WORTH_A_THREAD', 1)
    layer = nn.Sequential(ODConv2d(6, 18, 3, groups=groups, norm_cfg=None), nn.BatchNorm2d(18)).eval().double()
    x = torch.randn(3, 6, 9, 8, dtype=torch.float64)
    for one in (x[:1], x):
        with use_plan('numba'):
            actual = layer(one)
            assert 'mix_and_scale' in serving(layer, one)
        with enable_numba(False), use_plan('grouped'):
            torch.testing.assert_close(actual, layer(one), rtol=1e-9, atol=1e-9)


def test_a_parameter_that_does_not_fit_is_torchs_to_refuse(odconv):
    for name in ('attention.bn.weight', 'attention.fc.weight', 'attention.kernel_fc.bias'):
        broken = ODConv2d(6, 4, 3).eval()
        broken.get_parameter(name).data = broken.get_parameter(name).data[:3]
        with pytest.raises((ValueError, RuntimeError)):
            broken(torch.randn(1, 6, 9, 8))


def test_parts_of_different_types(odconv):
    odconv.attention.bn.double()
    with pytest.raises(RuntimeError), enable_numba(False):
        odconv(torch.randn(1, 6, 9, 8))
    with pytest.raises(RuntimeError):
        odconv(torch.randn(1, 6, 9, 8))


def test_a_numba_that_does_not_work(odconv, monkeypatch):
    """One warning, and the numbers all the same."""
    monkeypatch.setitem(sys.modules, 'dynconv_mm.functional.backends.numba.compiled.attention', None)
    monkeypatch.delattr('dynconv_mm.functional.backends.numba.compiled.attention', raising=False)
    load.cache_clear()
    x = torch.randn(1, 6, 9, 8)
    with enable_numba(False):
        expected = odconv(x)
    with pytest.warns(UserWarning, match='without its Numba kernels.*DYNCONV_MM_NUMBA=0'):
        torch.testing.assert_close(odconv(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        odconv(x)
    load.cache_clear()


def test_without_a_folder_for_machine_code(monkeypatch):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError('cannot cache function: no locator available')
        return lambda function: function

    common = load('common')
    monkeypatch.setattr(common, 'njit', njit)
    assert common.compiled(len) is len


def test_the_average_of_a_large_map(runs):
    """To whose sum float32 could not add its last pixels."""
    x, fc = torch.full((1, 2, 2048, 2048), .1), FullyConnected(2, 2, bias=False)
    head = FullyConnected(2, 2)
    for weight in (fc.weight, head.weight):
        weight.copy_(torch.eye(2)[:, :, None, None])
    result = attention(x, 2, fc, None, dict(kernel=Head(head)), torch.tensor(1.))['kernel']
    assert 'attend' in runs
    torch.testing.assert_close(result.logit(), torch.full((1, 2), .1), rtol=3e-5, atol=0)


def test_tensors_without_memory_have_no_address():
    freed = torch.ones(3)
    freed.untyped_storage().resize_(0)
    assert numba.addresses(torch.float32, (torch.ones(3), 3)) is not None
    assert numba.addresses(torch.float32, (freed, 3)) is None


@pytest.mark.parametrize('options', [dict(), dict(groups=16), dict(kernel_num=1)], ids=str)
def test_zeros_that_are_not_in_memory(options):
    layer = ODConv2d(16, 16, 3, padding=1, **options).eval()
    assert_close(layer(torch._efficientzerotensor((1, 16, 9, 9))), layer(torch.zeros(1, 16, 9, 9)))

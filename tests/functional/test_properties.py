"""Without gradients every operator computes its equation by every plan and backend, whatever its tensors look like in
memory; it leaves them as they are, and its results to the caller."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixture_cases import LAYOUTS, Case, assert_agree, cases, reference
from torch import Tensor
from torch.nn import functional as F

from dynconv_mm.functional import PLANS, enable_numba, involution2d, mixture_conv2d, sample_conv2d
from dynconv_mm.layers import CondConv2d, DCDC2d, DCDConv2d, DyConv2d, Involution2d, ODConv2d

#: how a call comes to be without gradients
MODES = {'no_grad': torch.no_grad, 'inference_mode': torch.inference_mode, 'none required': contextlib.nullcontext}
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
numba_or_not = pytest.mark.parametrize('numba', [True, False], ids=['numba', 'torch'])
in_each_type = pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
#: so many weights that they are not handled at once
LARGE = Case(2, 2, 1, 128, 130, (3, 3), (5, 4), dict(stride=(1, 2), padding=(1, 1), dilation=(1, 1)),
             dict.fromkeys(('kernel', 'spatial', 'channel', 'filter'), 'shared'), True, {})
layouts = st.sampled_from(list(LAYOUTS))


def bytes_of(tensor: Tensor) -> Tensor:
    """All bytes of the memory that it lies in."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).clone()


def expect(equation: Callable[..., Tensor], calls: list[dict[str, Tensor]]) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Each call with what it is to give, in float64."""
    return [(tensors, equation(**{name: tensor.double() for name, tensor in tensors.items()})) for tensors in calls]


def check(operator: Callable[..., Tensor], calls: list[tuple[dict[str, Tensor], Tensor]], mode: str, what: str) -> None:
    """``operator`` gives what is expected of all ``calls``, one after the other, and nothing else changes."""
    results = []
    for tensors, _ in calls:
        before = {name: bytes_of(tensor) for name, tensor in tensors.items()}
        with MODES[mode]():
            result = operator(**tensors)
        results.append((result, result.clone()))
        for name, tensor in tensors.items():
            assert torch.equal(bytes_of(tensor), before[name]), f'{what} changed {name}'
    for (tensors, expected), (result, kept) in zip(calls, results):
        assert torch.equal(result, kept), f'{what}: the next call changed a result'
        assert result.dtype == tensors['input'].dtype
        assert_agree(result, expected, TOLERANCES[result.dtype], what)


def draw_calls(data: st.DataObject, dtype: torch.dtype, shapes: dict[str, tuple[int, ...]]) -> list[dict[str, Tensor]]:
    """Two calls of the same shapes and layouts with different numbers."""
    generator = torch.Generator().manual_seed(0)
    kinds = {name: data.draw(layouts, name) for name in shapes}
    return [{name: LAYOUTS[kinds[name]](torch.randn(shape, generator=generator).to(dtype))
             for name, shape in shapes.items()} for _ in range(2)]


def draw_geometry(data: st.DataObject) -> tuple[tuple[int, int], tuple[int, int], dict[str, tuple[int, int]]]:
    """Sizes of a map and of a kernel, stride, padding and dilation."""
    pair = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * 2))  # noqa: E731
    kernel, geometry = pair(1, 4), dict(stride=pair(1, 3), padding=pair(0, 3), dilation=pair(1, 2))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, geometry['padding'], geometry['dilation'])]
    return tuple(low + more for low, more in zip(least, pair(0, 8))), kernel, geometry


def plans_that_serve(tensors: dict[str, Tensor], arguments: dict[str, object]) -> Iterator[str]:
    """The plans that do not refuse a call of mixture_conv2d."""
    for plan in ('auto', *PLANS):
        try:
            with torch.no_grad():
                mixture_conv2d(**tensors, **arguments, plan=plan)
        except ValueError as error:
            if f'plan {plan!r} cannot serve' not in str(error):
                raise
        else:
            yield plan


@in_each_type
@settings(deadline=None, max_examples=200)
@given(case=cases(), mode=st.sampled_from(list(MODES)))
@example(case=LARGE, mode='no_grad')
@example(case=LARGE._replace(batch=1), mode='inference_mode')
def test_mixture_conv2d(dtype, case, mode):
    arguments = dict(case.arguments, groups=case.groups)
    calls = expect(partial(reference, **arguments), [
        case.lay_out({name: tensor.detach() for name, tensor in case.make_tensors(dtype, seed).items()})
        for seed in range(2)])
    for numba in (True, False):
        with enable_numba(numba):
            plans = list(plans_that_serve(calls[0][0], arguments))
            assert {'auto', 'grouped'} <= set(plans)
            for plan in plans:
                check(partial(mixture_conv2d, **arguments, plan=plan), calls, mode, f'{plan}, Numba {numba}')


@in_each_type
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_involution2d(dtype, data):
    size, kernel, geometry = draw_geometry(data)
    batch, groups, group_channels = (data.draw(st.integers(1, 3)) for _ in range(3))
    stride, padding, dilation = geometry.values()
    out_size = [(s + 2 * p - d * (k - 1) - 1) // t + 1
                for s, k, p, d, t in zip(size, kernel, padding, dilation, stride)]
    calls = draw_calls(data, dtype, dict(input=(batch, groups * group_channels, *size),
                                         weight=(batch, groups, *kernel, *out_size)))
    mode, numba = data.draw(st.sampled_from(list(MODES))), data.draw(st.booleans())

    def equation(input: Tensor, weight: Tensor) -> Tensor:
        """Σ_ij W_g(c),ij x_c, of the columns of im2col."""
        columns = F.unfold(input, kernel, dilation, padding, stride)
        columns = columns.view(batch, groups, group_channels, *kernel, *out_size)
        return (columns * weight[:, :, None]).sum((3, 4)).flatten(1, 2)

    with enable_numba(numba):
        check(partial(involution2d, **geometry), expect(equation, calls), mode, f'Numba {numba}')


@in_each_type
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_sample_conv2d(dtype, data):
    size, kernel, geometry = draw_geometry(data)
    batch, groups, group_channels, group_outputs = (data.draw(st.integers(1, 3)) for _ in range(4))
    shapes = dict(input=(batch, groups * group_channels, *size),
                  weight=(batch, groups * group_outputs, group_channels, *kernel))
    if data.draw(st.booleans()):
        shapes['bias'] = (groups * group_outputs, )
    calls = draw_calls(data, dtype, shapes)
    mode, numba = data.draw(st.sampled_from(list(MODES))), data.draw(st.booleans())

    def equation(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A sample at a time."""
        return torch.cat([F.conv2d(x[None], w, bias, **geometry, groups=groups) for x, w in zip(input, weight)])

    with enable_numba(numba):
        check(partial(sample_conv2d, **geometry, groups=groups), expect(equation, calls), mode, f'Numba {numba}')


@numba_or_not
@in_each_type
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('batch', [1, 3])
def test_layers_one_after_the_other(numba, dtype, mode, batch):
    """Memory that layers share between calls holds nothing that somebody still reads: in any order of the layers, and
    however their features lie in memory, the results are the same, and stay so."""
    arguments = dict(in_channels=8, out_channels=8, kernel_size=3, padding=1)
    layers = [ODConv2d(**arguments), ODConv2d(**arguments, kernel_num=1), ODConv2d(**arguments, groups=8),
              ODConv2d(**arguments, share_attention=False), DyConv2d(**arguments), CondConv2d(**arguments),
              DCDConv2d(**arguments, squeeze_ratio=4), Involution2d(**arguments, group_channels=4),
              DCDC2d(**arguments, group_channels=4), ODConv2d(8, 8, 1), DyConv2d(8, 8, 1)]
    layers = [layer.to(dtype).eval().requires_grad_(False) for layer in layers]
    for layout in LAYOUTS.values():
        inputs = [layout(torch.randn(batch, 8, 9, 7, dtype=dtype)) for _ in layers]
        with enable_numba(False), torch.no_grad():
            alone = [layer(x.contiguous()).clone() for layer, x in zip(layers, inputs)]
        with enable_numba(numba), MODES[mode]():
            for order in (range(len(layers)), reversed(range(len(layers)))):
                results = {index: layers[index](inputs[index]) for index in order}
                kept = {index: result.clone() for index, result in results.items()}
                for layer, x in zip(layers, inputs):
                    layer(-x)
                for index, result in results.items():
                    assert torch.equal(result, kept[index])
                    torch.testing.assert_close(result, alone[index])

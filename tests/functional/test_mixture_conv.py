"""Every plan computes the equation: ODConv's Eq. 2, in tests/support/mixture_cases.py in plain loops and float64."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixture_cases import Case, assert_agree, cases, reference
from torch import Tensor
from torch.nn import functional as F

from dynconv_mm.functional import PLANS, mixture_conv2d, use_plan
from dynconv_mm.functional.cost_model import Shape, estimate
from dynconv_mm.functional.mixture_conv import MIXTURE_CONV, Mixture
from dynconv_mm.functional.operator import Backend, execute

CPU_PLANS = [name for name in PLANS if name not in ('triton', 'numba')]  # with gradients
ALL_PLANS = [*CPU_PLANS, 'auto']

CASE = Case(2, 3, 2, 2, 1, (3, 1), (4, 3), dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
            dict(kernel='shared', spatial='own', channel='own', filter='own'), True, {})
SHARED = dict(kernel='shared', spatial='shared', channel='shared', filter='shared')
DENSE = CASE._replace(groups=1, attentions=SHARED)
GRADCHECK_CASES = {  # for plans that do not serve the most general one
    'shared': CASE._replace(n=1, attentions=dict(SHARED, kernel='absent', spatial='absent')),
    'bmm': DENSE._replace(kernel=(1, 1)),
    'im2col': DENSE,
    'mix_after': CASE._replace(attentions=dict(SHARED, spatial='absent')),
    'shifted': CASE._replace(group_channels=1),
}
# in channels_last with one output channel, whose stride then says nothing: unless it is what torch itself would give
# it, torch's backward pass takes the kernel for one of another order
ONE_OUTPUT = CASE._replace(batch=1, n=1, group_outputs=1, kernel=(1, 3), size=(1, 3), attentions=SHARED, bias=False,
                           arguments=dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1)),
                           layouts=dict(input='channels_last', weight='channels_last'))


def served(case: Case, tensors: dict[str, Tensor]) -> list[str]:
    """The plans that can execute a case."""
    able = ['auto']
    for plan in PLANS:
        try:
            case.call(mixture_conv2d, {name: tensor[:1] if name != 'weight' and name != 'bias' else tensor
                                       for name, tensor in tensors.items()}, plan=plan)
        except ValueError as error:
            assert 'cannot serve' in str(error)
        else:
            able.append(plan)
    return able


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@settings(deadline=None, max_examples=60)
@given(case=cases())
@example(case=ONE_OUTPUT)
@example(case=ONE_OUTPUT._replace(groups=1))
def test_plans_agree_with_the_equation(dtype, tolerance, case):
    tensors = case.make_tensors(dtype)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    expected = case.call(reference, exact)
    upstream = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected_gradients = torch.autograd.grad(expected, list(exact.values()), upstream)
    for plan in served(case, tensors):
        actual = case.call(mixture_conv2d, tensors, plan=plan)
        assert actual.dtype == dtype
        assert_agree(actual, expected, tolerance, plan)
        gradients = torch.autograd.grad(actual, list(tensors.values()), upstream.to(dtype))
        for name, gradient, expected_gradient in zip(tensors, gradients, expected_gradients):
            assert_agree(gradient, expected_gradient, tolerance, f'gradient of {name} by {plan}')


@settings(deadline=None, max_examples=15)
@given(case=cases(batch=st.just(0)))
def test_empty_batch(case):
    tensors = case.make_tensors()
    size = [(s + 2 * p - d * (k - 1) - 1) // t + 1
            for s, k, p, d, t in zip(case.size, case.kernel, *(case.arguments[name] for name in (
                'padding', 'dilation', 'stride')))]
    for plan in served(case, tensors):
        output = case.call(mixture_conv2d, tensors, plan=plan)
        assert output.shape == (0, case.groups * case.group_outputs, *size)
        gradients = torch.autograd.grad(output.sum(), list(tensors.values()))
        for tensor, gradient in zip(tensors.values(), gradients):
            assert gradient.shape == tensor.shape and not gradient.any()


@pytest.mark.parametrize('plan', CPU_PLANS)
def test_gradcheck(plan):
    case = GRADCHECK_CASES.get(plan, CASE)
    tensors = case.make_tensors()

    def function(*values: Tensor) -> Tensor:
        return case.call(mixture_conv2d, dict(zip(tensors, values)), plan=plan)

    assert torch.autograd.gradcheck(function, list(tensors.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, list(tensors.values()), fast_mode=True)


@pytest.mark.parametrize('plan', CPU_PLANS)
def test_gradients_of_gradients_where_attentions_come_from_the_features(plan):
    """What flows through the attention is counted once."""
    case = GRADCHECK_CASES.get(plan, CASE)
    tensors = case.make_tensors()
    x = tensors.pop('input')

    def function(x: Tensor) -> Tensor:
        attentions = {name: value * x.mean((1, 2, 3)).view(-1, *[1] * (value.dim() - 1))
                      for name, value in tensors.items() if name.endswith('attention')}
        return case.call(mixture_conv2d, dict(tensors, input=x, **attentions), plan=plan)

    assert torch.autograd.gradgradcheck(function, [x], fast_mode=True)


@pytest.mark.parametrize('plan', [name for name in ALL_PLANS if name not in ('bmm', 'im2col', 'shifted')])
def test_one_kernel_without_attention_is_an_ordinary_convolution(plan):
    x, weight, bias = torch.randn(2, 4, 7, 6).double(), torch.randn(6, 2, 3, 3).double(), torch.randn(6).double()
    arguments = dict(stride=2, padding=1, dilation=2, groups=2)  # ints serve both directions
    torch.testing.assert_close(mixture_conv2d(x, weight[None], bias, **arguments, plan=plan),
                               F.conv2d(x, weight, bias, **arguments))


@pytest.mark.parametrize(('name', 'shape'), [
    ('input', (4, 4, 3)),
    ('input', (2, 5, 4, 3)),
    ('weight', (2, 2, 3, 1)),
    ('groups', (3, 3, 2, 3, 1)),
    ('bias', (1,)),
    ('bias', (2, 1)),
    ('kernel_attention', (2, 2)),
    ('kernel_attention', (1, 3)),
    ('kernel_attention', (2, 3, 1)),
    ('spatial_attention', (2, 2)),
    ('spatial_attention', (2, 3, 3, 1)),
    ('spatial_attention', (1, 3, 3)),
    ('channel_attention', (2, 2)),
    ('channel_attention', (2, 2, 4)),
    ('channel_attention', (4,)),
    ('filter_attention', (2, 1)),
    ('filter_attention', (2, 4, 2)),
    ('filter_attention', (2, 3, 2, 1, 1)),
])
def test_bad_shapes_are_refused(name, shape):
    tensors = CASE.make_tensors()
    tensors['weight' if name == 'groups' else name] = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=rf'^{name}\b' if name != 'groups' else 'divisible by groups'):
        CASE.call(mixture_conv2d, tensors)


@pytest.mark.parametrize('groups', [0, -2, 3])
def test_bad_groups_are_refused(groups):
    with pytest.raises(ValueError, match='groups'):
        mixture_conv2d(torch.ones(1, 4, 3, 3), torch.ones(1, 2, 2, 1, 1), groups=groups)


@pytest.mark.parametrize('batch', [0, 2])
@pytest.mark.parametrize('plan', ['fast', '', None, ['grouped']])
def test_unknown_plans_are_refused(batch, plan):
    with pytest.raises(ValueError, match='plan.*auto') as raised:
        mixture_conv2d(torch.ones(batch, 2, 3, 3), torch.ones(1, 2, 2, 1, 1), plan=plan)
    assert all(repr(name) in str(raised.value) for name in PLANS)


# The choice of a plan.


def make_call(kernel_size: int = 3, groups: int = 1, n: int = 2) -> dict[str, Tensor | int]:
    x, weight = torch.randn(2, 4, 5, 6), torch.randn(n, 8, 4 // groups, kernel_size, kernel_size)
    return dict(input=x, weight=weight, kernel_attention=torch.rand(2, n), groups=groups)


@pytest.mark.parametrize(('plan', 'call'), [('bmm', dict(kernel_size=3)), ('bmm', dict(groups=2)), ('shared', {}),
                                            ('shifted', {}), ('im2col', dict(groups=2))], ids=str)
def test_a_plan_that_cannot_serve_the_call_names_those_that_can(plan, call):
    with pytest.raises(ValueError, match=f"plan '{plan}' cannot serve .*'grouped', .*'per_sample'"):
        mixture_conv2d(**make_call(**call), plan=plan)


def test_attentions_of_each_kernel_are_refused_by_plans_that_take_them_out_of_the_sum():
    with pytest.raises(ValueError, match='attentions that each kernel has of its own'):
        mixture_conv2d(**make_call(), filter_attention=torch.rand(2, 2, 8), plan='im2col')


def test_one_plan_for_all(monkeypatch):
    """In the block and in this thread alone, also where the block fails."""
    used, pointwise = [], make_call(kernel_size=1)
    expected = mixture_conv2d(**pointwise, plan='per_sample')
    for name, plan in list(PLANS.items()):
        def forward(m, name=name, plan=plan):
            used.append(name)
            return plan.forward(m)
        monkeypatch.setitem(PLANS, name, plan._replace(forward=forward))

    def used_for(plan: str = 'fold', call: dict = pointwise) -> str:
        y = mixture_conv2d(**call, plan=plan)
        if call is pointwise:
            torch.testing.assert_close(y, expected)
        return used.pop()

    with use_plan('bmm'):
        assert used_for() == used_for('auto') == 'bmm'
        assert used_for(call=make_call()) == 'fold'  # a call that bmm cannot serve
        with use_plan('grouped'):
            assert used_for() == 'grouped'
        with use_plan('auto'):
            assert used_for() == 'fold'
        assert used_for() == 'bmm'
        with ThreadPoolExecutor(1) as other_thread:
            assert other_thread.submit(used_for).result() == 'fold'
    assert used_for() == 'fold'
    with pytest.raises(ZeroDivisionError), use_plan('bmm'):
        used_for(call=1 / 0)
    assert used_for() == 'fold' and not used


def test_an_unknown_plan_for_all_is_refused():
    with pytest.raises(ValueError, match='plan must be'), use_plan('fast'):
        pass


@pytest.mark.parametrize('grad', [False, True], ids=['inference', 'training'])
@pytest.mark.parametrize('n', [1, 4])
@pytest.mark.parametrize(('channels', 'groups', 'kernel_size'), [(8, 1, 1), (8, 1, 3), (8, 8, 3), (8, 2, 3)])
def test_every_kind_of_convolution_has_a_cheapest_plan(channels, groups, kernel_size, n, grad):
    """The one with the lowest estimate of several that can serve the call, each time; it computes what others do."""
    x, weight = torch.randn(2, channels, 5, 6), torch.randn(n, channels, channels // groups, kernel_size, kernel_size)
    m = Mixture(x, weight.requires_grad_(grad), None, torch.rand(2, n), None, None, None, (1, 1), (0, 0), (1, 1),
                groups, True)
    costs = estimate(Shape(2, n, channels, channels, groups, (kernel_size, kernel_size), (5, 6), m.output_size, grad))
    costs = {name: cost for name, cost in costs.items() if MIXTURE_CONV.refusal(name, m, grad) is None}
    assert len(costs) > 1
    for _ in range(2):  # the second time it is remembered
        backend = MIXTURE_CONV.choose(m, 'auto', grad)
        assert [name for name, plan in PLANS.items() if plan is backend] == [min(costs, key=costs.__getitem__)]
    torch.testing.assert_close(execute(MIXTURE_CONV, backend, m), MIXTURE_CONV.reference(m), rtol=1e-4, atol=1e-5)


def test_out_of_memory_falls_back_to_the_most_frugal_plan_with_a_warning(monkeypatch):
    def fail(m):
        raise RuntimeError('[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can\'t allocate memory')

    monkeypatch.setitem(PLANS, 'fold', Backend(fail))
    call = make_call()
    with pytest.warns(UserWarning, match="out of memory in plan 'fold'.*per_sample"):
        y = mixture_conv2d(**call, plan='fold')
    torch.testing.assert_close(y, mixture_conv2d(**call, plan='grouped'))
    monkeypatch.setitem(PLANS, 'per_sample', Backend(lambda m: fail(m)))
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match='DefaultCPUAllocator'):
        mixture_conv2d(**call, plan='fold')


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch):
    def fail(m):
        raise RuntimeError('something else')

    monkeypatch.setitem(PLANS, 'fold', Backend(fail))
    with pytest.raises(RuntimeError, match='something else'):
        mixture_conv2d(**make_call(), plan='fold')


@pytest.mark.parametrize('plan', ['fold', 'im2col', 'grouped', 'mix_after'])
def test_channels_last_in_channels_last_out(plan):
    call = make_call()
    y = mixture_conv2d(**{**call, 'input': call['input'].contiguous(memory_format=torch.channels_last)}, plan=plan)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, mixture_conv2d(**call))


def test_autocast_computes_in_low_precision():
    call = make_call()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = mixture_conv2d(**call)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), mixture_conv2d(**call), rtol=.05, atol=.2)

"""conv_norm: the convolution, then the norm, in one operation where that gives the same."""
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dynconv_mm.functional.mixture_conv import PLANS, use_plan
from dynconv_mm.layers import CondConv2d, DyConv2d, ODConv2d
from dynconv_mm.layers.conv_norm import conv_norm
from dynconv_mm.layers.static_conv import StaticConv2d

SMALL = dict(in_channels=6, out_channels=4, kernel_size=3, padding=1)
CONVS = {
    'ODConv2d': lambda **options: ODConv2d(**options, kernel_num=3),
    'ODConv2d, kernel attention alone': lambda **options: ODConv2d(**options, kernel_num=3, attentions=['kernel']),
    'DyConv2d': lambda **options: DyConv2d(**options, kernel_num=3),
    'CondConv2d': lambda **options: CondConv2d(**options, kernel_num=3),
    'CondConv2d, shared routing': lambda **options: CondConv2d(**options, kernel_num=3, routing=False),
    'StaticConv2d': StaticConv2d,
}


def make_input(batch: int = 3) -> Tensor:
    return torch.randn(batch, 6, 8, 7, generator=torch.Generator().manual_seed(1)).double().requires_grad_()


@pytest.fixture(params=CONVS)
def make_conv(request, make_random) -> Callable[..., nn.Module]:
    return lambda **options: make_random(CONVS[request.param](**{**SMALL, **options})).double().eval()


def shared_by(conv: nn.Module, batch: int = 3) -> list[Tensor]:
    """The routing weights, where the convolution has none of its own."""
    if getattr(conv, 'routing', conv) is not None:
        return []
    return [torch.rand(batch, 3, generator=torch.Generator().manual_seed(2)).double().requires_grad_()]


def make_norm(affine: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(4, affine=affine).double().eval()
    generator = torch.Generator().manual_seed(3)
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.data.uniform_(.5, 1.5, generator=generator)
    return norm


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What goes through a norm, written down without a hook."""
    calls = []
    for name in ('batch_norm', 'group_norm'):
        function = getattr(nn.functional, name)
        monkeypatch.setattr(nn.functional, name, lambda x, *args, _function=function, **kwargs: (
            calls.append(x) if x.shape[1] == 4 else None, _function(x, *args, **kwargs))[1])  # none in an attention
    return calls


@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('options', [dict(), dict(bias=False), dict(kernel_size=1, padding=0),
                                     dict(groups=2, stride=2)], ids=str)
def test_in_eval_mode(make_conv, options, affine, monkeypatch):
    conv, norm, x = make_conv(**options), make_norm(affine), make_input()
    shared = shared_by(conv)
    leaves = [x, *shared, *conv.parameters(), *norm.parameters()]
    expected = norm(conv(x, *shared))
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    calls = count_calls(monkeypatch)
    actual = conv_norm(conv, norm, x, *shared)
    assert not calls
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    for gradient, other in zip(torch.autograd.grad(actual.square().sum(), leaves), wanted):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(conv_norm(conv, norm, x, *shared), expected, rtol=0, atol=1e-10)


def test_an_empty_batch(make_conv):
    conv = make_conv()
    assert conv_norm(conv, make_norm(), make_input(0), *shared_by(conv, 0)).shape == (0, 4, 8, 7)


def test_autocast(make_conv):
    conv, norm, x = make_conv().float(), make_norm().float(), make_input().float()
    shared = [weights.float() for weights in shared_by(conv)]
    with torch.autocast('cpu', torch.bfloat16):
        actual = conv_norm(conv, norm, x, *shared)
    expected = norm(conv(x, *shared))
    assert (actual - expected).abs().max() < .05 * expected.abs().max()


@pytest.mark.parametrize('change', [lambda conv, norm: norm.train(),
                                    lambda conv, norm: norm.register_forward_hook(lambda *arguments: None),
                                    lambda conv, norm: conv.register_forward_pre_hook(lambda *arguments: None)],
                         ids=['training', 'hook of the norm', 'hook of the convolution'])
def test_the_norm_runs_where_it_must(make_conv, change, monkeypatch):
    conv, norm, x = make_conv(), make_norm(), make_input()
    change(conv, norm)
    calls = count_calls(monkeypatch)
    shared = shared_by(conv)
    expected = norm(conv(x, *shared))
    torch.testing.assert_close(conv_norm(conv, norm, x, *shared), expected)
    assert len(calls) == 2


def test_static_convolutions_and_other_norms(monkeypatch):
    x = make_input()
    for conv, norm in ((nn.Conv2d(6, 4, 3).double(), make_norm()),
                       (DyConv2d(**SMALL).double(), nn.GroupNorm(2, 4).double()),
                       (DyConv2d(**SMALL).double(), nn.BatchNorm2d(4, track_running_stats=False).double().eval())):
        calls = count_calls(monkeypatch)
        torch.testing.assert_close(conv_norm(conv, norm, x), norm(conv(x)))
        assert len(calls) == 2


def test_a_static_kernel_that_is_larger_than_the_output_is_left_alone(monkeypatch):
    conv, norm = StaticConv2d(6, 4, 3, padding=1).double(), make_norm()
    calls = count_calls(monkeypatch)
    large, small = make_input(), make_input()[:1, :, :7, :7]
    conv_norm(conv, norm, large)
    assert not calls
    conv_norm(conv, norm, small)  # 216 numbers in the kernel, 196 in the output
    assert len(calls) == 1


def with_its_weight_as_a_plain_tensor(norm: nn.BatchNorm2d) -> None:
    weight = norm.weight.detach().clone()
    del norm.weight
    norm.weight = weight


def with_a_parametrized_bias(norm: nn.BatchNorm2d) -> None:
    torch.nn.utils.parametrize.register_parametrization(norm, 'bias', nn.Tanh())


@pytest.mark.parametrize('change', [with_its_weight_as_a_plain_tensor, with_a_parametrized_bias])
def test_a_norm_whose_parts_are_elsewhere(make_conv, change):
    conv, norm, x = make_conv(), make_norm(), make_input()
    change(norm)
    shared = shared_by(conv)
    torch.testing.assert_close(conv_norm(conv, norm, x, *shared), norm(conv(x, *shared)), rtol=0, atol=1e-10)


def test_a_norm_of_another_precision(make_conv):
    """Float32 beside half precision is computed in float32; other mixtures are torch's to refuse."""
    conv, norm, x = make_conv().bfloat16(), make_norm().float(), make_input().bfloat16()
    shared = [weights.bfloat16() for weights in shared_by(conv)]
    actual, expected = conv_norm(conv, norm, x, *shared), norm(conv(x, *shared))
    assert actual.dtype == expected.dtype == torch.bfloat16 and torch.equal(actual, expected)
    with pytest.raises(RuntimeError):
        conv_norm(conv, make_norm(), x, *shared)


def test_a_norm_without_a_variance_is_torchs_to_refuse(make_conv):
    conv, norm = make_conv(), make_norm()
    norm.running_var = None
    with pytest.raises(RuntimeError, match='running_var must be defined'):
        conv_norm(conv, norm, make_input(), *shared_by(conv))


def test_a_norm_of_vectors_is_torchs_to_refuse(make_conv):
    conv = make_conv()
    with pytest.raises(ValueError, match='expected 2D or 3D input'):
        conv_norm(conv, nn.BatchNorm1d(4).double().eval(), make_input(), *shared_by(conv))


def test_a_symbolic_trace_keeps_the_norm(make_conv):
    """So that the graph holds for training too."""
    conv, norm = make_conv(), make_norm()
    if shared_by(conv):
        pytest.skip('the routing weights come from elsewhere')

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv, norm

        def forward(self, x: Tensor) -> Tensor:
            return conv_norm(self.conv, self.norm, x)

    graph, x = torch.fx.symbolic_trace(Block().eval()), make_input()
    torch.testing.assert_close(graph(x), norm(conv(x)))
    graph.train()
    torch.testing.assert_close(graph(x), norm.train()(conv(x)))


def test_geometry_that_was_changed_by_hand():
    """As lists or numbers, which torch takes too."""
    x = make_input()
    for groups, channels in ((1, 4), (6, 6)):
        conv = StaticConv2d(6, channels, 3, padding=1, groups=groups).double()
        expected = conv(x)
        conv.stride, conv.padding, conv.dilation = [1, 1], 1, [1, 1]
        with torch.no_grad():
            torch.testing.assert_close(conv(x), expected)
        conv.stride = 2
        assert conv(x).shape == (3, channels, 4, 4)


def test_lack_of_memory_does_not_lose_the_norm(make_conv, monkeypatch):
    def fail(call):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    conv, norm, x = make_conv(), make_norm(), make_input()
    if isinstance(conv, StaticConv2d):
        pytest.skip('there is no plan that needs less')
    shared = shared_by(conv)
    expected = norm(conv(x, *shared))
    monkeypatch.setitem(PLANS, 'grouped', PLANS['grouped']._replace(forward=fail))
    for grad in (True, False):
        with torch.set_grad_enabled(grad), use_plan('grouped'), pytest.warns(UserWarning, match='out of memory'):
            torch.testing.assert_close(conv_norm(conv, norm, x, *shared), expected)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(1), nn.BatchNorm2d(8), nn.BatchNorm3d(4)], ids=str)
def test_a_norm_that_does_not_fit_is_torchs_to_refuse(make_conv, norm):
    conv, norm, x = make_conv(), norm.double().eval(), make_input()
    with pytest.raises((RuntimeError, ValueError)) as expected:
        norm(torch.zeros(3, 4, 8, 7).double())
    with pytest.raises(expected.type) as actual:
        conv_norm(conv, norm, x, *shared_by(conv))
    assert str(actual.value) == str(expected.value)


def test_a_parametrization_is_evaluated_once(make_conv):
    """One that draws numbers, such as dropout on a weight, would differ from call to call."""

    class Counted(nn.Module):
        calls = 0

        def forward(self, weight):
            Counted.calls += 1
            return weight * (1 + Counted.calls)

    conv, norm, x = make_conv(), make_norm(), make_input()
    nn.utils.parametrize.register_parametrization(conv, 'weight', Counted())
    shared = shared_by(conv)
    Counted.calls = 0
    actual = conv_norm(conv, norm, x, *shared)
    assert Counted.calls == 1
    Counted.calls = 0
    torch.testing.assert_close(actual, norm(conv(x, *shared)))


def test_what_runs_as_an_identity(make_conv):
    """Without being one by class."""

    class NoNorm(nn.Module):
        forward = nn.Identity.forward

    conv, x = make_conv(), make_input()
    shared = shared_by(conv)
    assert torch.equal(conv_norm(conv, NoNorm().eval(), x, *shared), conv(x, *shared))

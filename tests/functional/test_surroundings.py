"""What surrounds a call: modes that hold no memory, transforms, forward-mode AD, many sizes."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from dynconv_mm.functional import mixture_conv2d
from dynconv_mm.functional import operator as operators
from dynconv_mm.functional.mixture_conv import MIXTURE_CONV
from dynconv_mm.layers import (
    CGConv2d,
    CondConv2d,
    DCDC2d,
    DCDConv2d,
    DDFConv2d,
    DyConv2d,
    FDConv2d,
    Involution2d,
    KWConv2d,
    LocalRelation2d,
    LSConv2d,
    ODConv2d,
    PairwiseSelfAttention2d,
    StandAloneSelfAttention2d,
    WEConv2d,
    WeightNetConv2d,
)

LAYERS = {
    'ODConv2d': lambda: ODConv2d(16, 24, 3, padding=1),
    'ODConv2d, 1x1': lambda: ODConv2d(16, 24, 1),
    'ODConv2d, one kernel': lambda: ODConv2d(16, 24, 3, kernel_num=1),
    'ODConv2d, depthwise': lambda: ODConv2d(16, 16, 3, groups=16),
    'ODConv2d, own attentions': lambda: ODConv2d(16, 24, 3, share_attention=False),
    'DyConv2d': lambda: DyConv2d(16, 24, 3, groups=2),
    'CondConv2d': lambda: CondConv2d(16, 24, 3, stride=2),
    'DCDConv2d': lambda: DCDConv2d(16, 24, 3, padding=1),
    'Involution2d': lambda: Involution2d(16, 16, 3),
    'DCDC2d': lambda: DCDC2d(16, 16, 3),
    'CGConv2d': lambda: CGConv2d(16, 24, 3, groups=2),
    'WeightNetConv2d': lambda: WeightNetConv2d(16, 24, 3, groups=2),
    'DDFConv2d': lambda: DDFConv2d(16, 16, 3),
    'PairwiseSelfAttention2d': lambda: PairwiseSelfAttention2d(16, 24, 3, reduction=1 / 4),
    'LocalRelation2d': lambda: LocalRelation2d(16, 16, 3),
    'StandAloneSelfAttention2d': lambda: StandAloneSelfAttention2d(16, 16, 3, heads=2),
    'WEConv2d': lambda: WEConv2d(16, 24, 3, stride=2),
    'KWConv2d': lambda: KWConv2d(16, 24, 3, groups=2, cell_num_ratio=1 / 2),
    'FDConv2d': lambda: FDConv2d(16, 24, 3, padding=1, kernel_num=5, static_channels=8),
    'LSConv2d': lambda: LSConv2d(16, 16, large_kernel_size=3),
}
SIZES = [(1, 7), (2, 14), (8, 9)]


@pytest.fixture(params=LAYERS)
def layer(request) -> nn.Module:
    layer = LAYERS[request.param]().double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=.3)
    return layer


@pytest.fixture(params=SIZES, ids=str)
def x(request) -> Tensor:
    batch, size = request.param
    return torch.randn(batch, 16, size, size, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> bool:
    return actual.shape == expected.shape and (actual - expected).abs().max() <= tolerance * (1 + expected.abs().max())


# Modes.


@pytest.mark.one_at_a_time('layer', 'x')
@torch.no_grad()
def test_nothing_is_left_behind_by_fake_tensors(layer, x):
    expected = layer(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = layer(mode.from_tensor(x + 1))
        assert isinstance(fake, FakeTensor) and fake.shape == expected.shape
        assert isinstance(layer(mode.from_tensor(torch.randn(3, 16, 11, 10).double())), FakeTensor)
    assert torch.equal(layer(x), expected)


@torch.no_grad()
def test_nor_by_a_default_device():
    """In a shape that no call before had."""
    layer, x = ODConv2d(16, 23, 3, padding=1).eval(), torch.randn(2, 16, 5, 11)
    torch.set_default_device('meta')
    try:
        first = layer(x)
    finally:
        torch.set_default_device(None)
    assert first.device.type == 'cpu' and torch.equal(layer(x), first)
    assert torch.equal(layer(x.clone()), first)


@pytest.mark.one_at_a_time('layer', 'x')
def test_meta_tensors(layer, x):
    y = layer.to('meta')(x.to('meta'))
    assert y.is_meta and y.shape[0] == len(x)


@pytest.mark.one_at_a_time('layer', 'x')
@torch.no_grad()
def test_subclasses_of_tensors_see_what_is_done(layer, x):
    class Marked(Tensor):
        pass

    expected, y = layer(x), layer(x.as_subclass(Marked))
    assert isinstance(y, Marked) and close(y.as_subclass(Tensor), expected)


@pytest.mark.one_at_a_time('layer', 'x')
@torch.no_grad()
def test_modes_see_what_is_done(layer, x):
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    expected = layer(x)
    with Watch():
        assert close(layer(x), expected)
    assert seen


@torch.no_grad()
def test_tensors_that_are_negated_when_they_are_read(layer):
    """Whose memory holds other numbers than they have."""
    pair = torch.complex(torch.zeros(1, 16, 8, 8, dtype=torch.float64), torch.randn(1, 16, 8, 8, dtype=torch.float64))
    x = pair.conj().imag
    assert x.is_neg()
    assert close(layer(x), layer(x.resolve_neg().contiguous()))
    if hasattr(layer, 'bias'):
        layer.bias = nn.Parameter(torch.complex(torch.zeros_like(layer.bias), layer.bias.detach()).conj().imag,
                                  requires_grad=False)
        expected = layer(x)
        layer.bias = nn.Parameter(layer.bias.resolve_neg().contiguous(), requires_grad=False)
        assert close(layer(x), expected)


# Transforms, and derivatives forward.


def numeric_tangent(layer: nn.Module, x: Tensor, tangent: Tensor, step: float = 1e-6) -> Tensor:
    with torch.no_grad():
        return (layer(x + step * tangent) - layer(x - step * tangent)) / (2 * step)


@pytest.mark.one_at_a_time('layer', 'x', 'grad')
@pytest.mark.parametrize('grad', [True, False], ids=['grad', 'no_grad'])
def test_forward_mode_derivatives(layer, x, grad):
    tangent = torch.randn_like(x)
    expected = numeric_tangent(layer, x, tangent)
    with torch.set_grad_enabled(grad), forward_ad.dual_level():
        y = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent)))
    assert y.tangent is not None and close(y.tangent, expected, 1e-6)
    _, actual = torch.func.jvp(layer, (x, ), (tangent, ))
    assert close(actual, expected, 1e-6)


def test_forward_mode_derivatives_by_a_weight(x):
    layer = ODConv2d(16, 24, 1).double().eval()
    tangent, step = torch.randn_like(layer.weight), 1e-6
    weight = layer.weight.detach()
    with torch.no_grad(), forward_ad.dual_level():
        y = torch.func.functional_call(layer, dict(weight=forward_ad.make_dual(weight, tangent)), (x, ))
        actual = forward_ad.unpack_dual(y).tangent
    with torch.no_grad():
        high, low = (torch.func.functional_call(layer, dict(weight=weight + sign * step * tangent), (x, ))
                     for sign in (1, -1))
    assert close(actual, (high - low) / (2 * step), 1e-6)


@pytest.mark.one_at_a_time('layer', 'x')
def test_gradients_by_a_transform(layer, x):
    def function(x: Tensor) -> Tensor:
        return layer(x).square().sum()

    leaf = x.clone().requires_grad_()
    expected, = torch.autograd.grad(function(leaf), leaf)
    assert close(torch.func.grad(function)(x), expected)


@pytest.mark.one_at_a_time('layer', 'x')
def test_gradients_of_each_sample(layer, x):
    parameters = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (sample[None], )).square().sum()

    actual = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for index, sample in enumerate(x):
        expected = torch.func.grad(loss)(parameters, sample)
        for name, gradient in expected.items():
            assert close(actual[name][index], gradient), name


@pytest.mark.one_at_a_time('layer', 'x')
def test_vmap(layer, x):
    expected = torch.cat([layer(sample[None]) for sample in x])
    assert close(torch.func.vmap(lambda sample: layer(sample[None])[0])(x), expected)


def test_derivatives_of_derivatives_by_transforms():
    x, weight, attention = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, 4, 5), (2, 3, 3, 3, 3),
                                                                                  (2, 2)))

    def loss(weight: Tensor) -> Tensor:
        return mixture_conv2d(x, weight, kernel_attention=attention).square().sum()

    hessian = torch.func.hessian(loss)(weight)
    expected = torch.autograd.functional.hessian(loss, weight)
    assert close(hessian, expected)


# Many sizes.

# Gradients where something surrounds the backward pass alone.


def test_a_backward_pass_of_fake_tensors():
    """A function with a backward function of its own has nothing to read then."""
    layer = ODConv2d(16, 16, 3, padding=1, groups=16).eval()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(torch.randn(8, 16, 9, 9)).requires_grad_()
        gradient, = torch.autograd.grad(layer(x).sum(), x)
    assert isinstance(gradient, FakeTensor) and gradient.shape == x.shape


@pytest.mark.parametrize('strategy', ['forward-mode', 'reverse-mode'])
def test_jacobians_in_one_pass(layer, strategy):
    """With several gradients of the output at once: ``is_grads_batched``."""
    x = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(layer, x)
    actual = torch.autograd.functional.jacobian(layer, x, vectorize=True, strategy=strategy)
    assert close(actual, expected, 1e-8)


@pytest.mark.parametrize('batch', [1, 8])
def test_a_backward_pass_within_autocast(layer, batch):
    """Gradients have the type of what they are of. Some that torch computes itself have the precision of bfloat16."""
    layer, x = layer.float(), torch.randn(batch, 16, 9, 9, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    loss = layer(x).square().sum()
    with torch.autocast('cpu', torch.bfloat16):
        gradients = torch.autograd.grad(loss, [x, *layer.parameters()])
    for gradient, expected in zip(gradients, wanted):
        assert gradient.dtype == torch.float32 and close(gradient, expected, .05)


@pytest.mark.one_at_a_time('layer', 'x', 'grad')
@pytest.mark.parametrize('grad', [True, False], ids=['grad', 'no_grad'])
def test_an_output_can_be_changed_in_place(layer, x, grad):
    """It is no view, of which ``detach_`` would be refused, and which gradients could not follow."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    with torch.set_grad_enabled(grad):
        y = layer(x)
    assert not y._is_view()
    if not grad:
        y += shift
        y.sum().backward()
        assert shift.grad == y.numel()
    y.detach_()



def test_choices_are_not_remembered_for_ever(monkeypatch):
    monkeypatch.setattr(operators, 'REMEMBERED', 20)
    layer = ODConv2d(4, 4, 3, padding=1).eval()
    with torch.no_grad():
        for size in range(5, 60):
            layer(torch.randn(1, 4, size, 7))
            assert len(MIXTURE_CONV._choices) <= 20

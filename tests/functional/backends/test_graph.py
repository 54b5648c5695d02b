"""The operators as an exported graph holds them are those that run here."""
import pytest
import torch
from torch.nn import functional as F

from dynconv_mm.functional import involution2d, sample_conv2d
from dynconv_mm.functional.attention import _average_by_products
from dynconv_mm.functional.backends import graph
from dynconv_mm.functional.involution import Involution
from dynconv_mm.functional.operator import is_exported, is_recorded


def assert_same(ours, theirs, tensors):
    """Outputs and gradients."""
    weights = torch.randn(theirs.shape, dtype=theirs.dtype)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), tensors) for y in (ours, theirs))):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(('groups', 'kernel_size', 'stride', 'padding', 'dilation'), [
    (1, (3, 5), (2, 1), (1, 2), (1, 1)), (2, (3, 2), (1, 3), (0, 1), (2, 1)), (6, (3, 3), (2, 2), (1, 1), (1, 2)),
])
def test_sample_conv(groups, kernel_size, stride, padding, dilation):
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True)
               for shape in ((3, 6, 10, 13), (3, 12, 6 // groups, *kernel_size), (12, ))]
    geometry = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    assert_same(graph.sample_conv(*tensors, **geometry), sample_conv2d(*tensors, **geometry), tensors)


@pytest.mark.parametrize(('kernel_size', 'stride', 'padding', 'dilation'), [
    ((3, 5), (1, 1), (1, 2), (1, 1)), ((5, 3), (2, 3), (2, 0), (1, 2)), ((1, 1), (1, 1), (0, 0), (1, 1)),
])
def test_involution(kernel_size, stride, padding, dilation):
    torch.manual_seed(0)
    size = [(length + 2 * p - d * (k - 1) - 1) // s + 1
            for length, k, s, p, d in zip((10, 13), kernel_size, stride, padding, dilation)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True)
               for shape in ((2, 6, 10, 13), (2, 3, *kernel_size, *size))]
    geometry = dict(stride=stride, padding=padding, dilation=dilation)
    recorded = graph.involution(Involution(*tensors, *geometry.values()))
    assert_same(recorded, involution2d(*tensors, **geometry), tensors)


@pytest.mark.parametrize('size', [1, 2, 3, 5])
@pytest.mark.parametrize('shape', [(10, 13), (3, 4), (1, 2)])
def test_adaptive_avg_pool2d(size, shape):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    assert_same(_average_by_products(x, size), F.adaptive_avg_pool2d(x, size), [x])


def test_only_a_recording_is_one():
    assert not is_exported() and not is_recorded()
    seen = []
    torch.jit.trace(lambda x: (seen.append((is_exported(), is_recorded())), x + 1)[1], torch.zeros(1))
    assert seen[0] == (True, True)

"""sample_conv2d convolves each sample by its own kernel."""
import pytest
import torch
from torch.nn import functional as F

from dynconv_mm.functional import sample_conv2d


def make(batch: int = 3, groups: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, 7, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(batch, 6, 4 // groups, 3, 1, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize('geometry', [dict(), dict(stride=2, padding=1), dict(stride=(1, 2), padding=(2, 0), groups=2,
                                                                              dilation=(2, 1))], ids=str)
@pytest.mark.parametrize('batch', [1, 3])
def test_sample_by_sample(batch, geometry):
    x, weight = make(batch, geometry.get('groups', 1))
    expected = torch.cat([F.conv2d(x[b:b + 1], weight[b], **geometry) for b in range(batch)])
    actual = sample_conv2d(x, weight, **geometry)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(actual.square().sum(), (x, weight)),
                               torch.autograd.grad(expected.square().sum(), (x, weight)), rtol=0, atol=1e-10)


def test_an_empty_batch():
    x, weight = make(0)
    y = sample_conv2d(x, weight, stride=2)
    assert y.shape == (0, 6, 3, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape and weight.grad.shape == weight.shape


@pytest.mark.parametrize(('change', 'options', 'words'), [
    (lambda x, w: (x[0], w), dict(), r'input must be \[batch'),
    (lambda x, w: (x, w[:2]), dict(), r'weight must be \[batch=3'),
    (lambda x, w: (x, w[:, 0]), dict(), r'weight must be \[batch=3'),
    (lambda x, w: (x[:, :3], w), dict(), 'input has 3 channels'),
    (lambda x, w: (x, w), dict(groups=2), 'groups=2 takes 8'),
    (lambda x, w: (x, w[:, :5, :2]), dict(groups=2), 'out_channels must be divisible by groups'),
    (lambda x, w: (x, w), dict(bias=torch.zeros(1)), r'bias must be \[6\]'),
    (lambda x, w: (x, w.half()), dict(), 'input must have the dtype of weight'),
], ids=['input', 'batch', 'weight', 'channels', 'groups', 'outputs', 'bias', 'type'])
def test_tensors_that_do_not_fit(change, options, words):
    with pytest.raises(ValueError, match=words):
        sample_conv2d(*change(*make()), **options)

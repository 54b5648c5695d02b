"""The kernel computes ODConv's attentions as torch does, in inference and where nothing but the kernel could tell."""
from __future__ import annotations

import pytest
import torch

pytest.importorskip('triton', '3.6', reason='the kernels need Triton 3.6 or newer, which this torch does not bring')

from dynconv_mm.functional import enable_numba, enable_triton
from dynconv_mm.functional.backends.triton import attention as kernels
from dynconv_mm.layers import ODConv2d


@pytest.fixture
def served(monkeypatch) -> list[bool]:
    """Whether the kernel served each call."""
    served, run = [], kernels.attention

    def attention(call):
        attentions = run(call)
        served.append(attentions is not None)
        return attentions

    monkeypatch.setattr(kernels, 'attention', attention)
    return served


def make(make_random, device: str, dtype: torch.dtype = torch.float64, **arguments) -> ODConv2d:
    layer = make_random(ODConv2d(**{**dict(in_channels=5, out_channels=70, kernel_size=3, kernel_num=3,
                                           min_channels=7), **arguments}))
    for norm in (module for module in layer.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(.5, 2)
    layer.temperature.fill_(3.)
    return layer.to(device, dtype).eval()


@pytest.mark.parametrize('arguments', [
    {}, dict(norm_cfg=None), dict(norm_cfg=dict(type='BN', affine=False)), dict(attentions=('channel', )),
    dict(kernel_size=1, kernel_num=1), dict(spatial_activation='softmax'), dict(share_attention=False),
    dict(in_channels=6, out_channels=6, groups=6)], ids=str)
@torch.no_grad()
def test_values(make_random, device, served, arguments):
    layer = make(make_random, device, torch.float64 if device == 'cpu' else torch.float32, **arguments)
    x = torch.randn(19, layer.in_channels, 3, 4, device=device, dtype=layer.weight.dtype)
    with enable_triton(False):
        expected = layer.compute_attentions(x)
    with enable_triton(), enable_numba(False):
        actual = layer.compute_attentions(x)
    assert served == [True] and actual.keys() == expected.keys() and expected
    for name, attention in expected.items():
        torch.testing.assert_close(actual[name], attention, rtol=1e-5, atol=1e-9 if device == 'cpu' else 1e-5)


def test_where_it_does_not_serve(make_random, device, served):
    dtype = torch.float64 if device == 'cpu' else torch.float32
    layer = make(make_random, device, dtype)
    x = torch.randn(2, 5, 3, 4, device=device, dtype=dtype)
    with enable_triton(), enable_numba(False):
        assert all(attention.requires_grad for attention in layer.compute_attentions(x).values())
        with torch.no_grad():
            calls = []
            layer.attention.fc.register_forward_hook(lambda *arguments: calls.append(arguments))
            layer.compute_attentions(x)
            assert len(calls) == 1
            for other in (make(make_random, device, dtype, spatial_pool_size=2),
                          make(make_random, device, dtype, norm_cfg=dict(type='LN')),
                          make(make_random, device, dtype, spatial_activation='softmax', share_attention=False),
                          make(make_random, device, dtype).train()):
                other.compute_attentions(x)
            make(make_random, device, dtype).compute_attentions(x[:0])
    assert served == [False] * 7

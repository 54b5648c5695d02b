"""The operators as an exporter records them, for each target, are those that run here."""
import itertools

import pytest
import torch

from dynconv_mm.functional import involution2d, mixture_conv2d, sample_conv2d
from dynconv_mm.functional.batch_norm import BatchNorm
from dynconv_mm.functional.operator import Target, export_for, export_target
from dynconv_mm.layers import ODConv2d

TARGETS = [Target(runtime, any_size) for runtime in ('onnxruntime', 'openvino') for any_size in (True, False)]
GEOMETRIES = [dict(groups=1, kernel_size=(3, 5), stride=(2, 1), padding=(1, 2)), dict(groups=2, kernel_size=(1, 1)),
              dict(groups=6, kernel_size=(3, 3), dilation=(1, 2)), dict(groups=1, kernel_size=(1, 1))]
LEFT_OUT = [(), ('spatial_attention', ), ('spatial_attention', 'kernel_attention'), ('channel_attention', ),
            ('filter_attention', )]


def recorded(target, function, *arguments, **options):
    """The output of a function while it is recorded for a target."""
    seen = []
    token = export_for.set(target)
    try:
        torch.jit.trace(lambda x: (seen.append(function(*arguments, **options)), x + 1)[1], torch.zeros(1),
                        check_trace=False)
    finally:
        export_for.reset(token)
    return seen[0]


@pytest.mark.parametrize('target', TARGETS, ids=str)
def test_mixtures(target):
    torch.manual_seed(0)
    for number, (n, geometry, left_out) in enumerate(itertools.product((1, 4), GEOMETRIES, LEFT_OUT)):
        geometry = dict(geometry)
        groups, (height, width) = geometry['groups'], geometry.pop('kernel_size')
        size = (4, 12)[number % 2]  # kernels larger than the maps, or not
        x = torch.randn(1, 6, size + 1, size + 4, dtype=torch.float64)
        weight, bias = x.new_empty(n, 12, 6 // groups, height, width).normal_(), x.new_empty(12).normal_()
        norm = BatchNorm(*(bias.new_empty(12).uniform_(.5, 1) for _ in range(4)), 1e-3)
        attentions = {name: x.new_empty(1, length).uniform_() for name, length in (
            ('spatial_attention', height * width), ('channel_attention', 6), ('filter_attention', 12),
            ('kernel_attention', n)) if name not in left_out}
        options = dict(geometry, norm=norm if number % 3 else None, plan='grouped', **attentions)
        actual = recorded(target, mixture_conv2d, x, weight, bias, **options)
        torch.testing.assert_close(actual, mixture_conv2d(x, weight, bias, **options), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('target', TARGETS, ids=str)
def test_samples(target):
    torch.manual_seed(0)
    for geometry in map(dict, GEOMETRIES):
        groups, kernel_size = geometry['groups'], geometry.pop('kernel_size')
        x = torch.randn(1, 6, 9, 11, dtype=torch.float64)
        kernels, bias = x.new_empty(1, 12, 6 // groups, *kernel_size).normal_(), x.new_empty(12).normal_()
        actual = recorded(target, sample_conv2d, x, kernels, bias, **geometry)
        torch.testing.assert_close(actual, sample_conv2d(x, kernels, bias, **geometry), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('options', [dict(), dict(kernel_num=1), dict(share_attention=False),
                                     dict(spatial_activation='softmax')], ids=str)
def test_attentions(options):
    torch.manual_seed(0)
    layer = ODConv2d(6, 8, 3, **options).eval().double().requires_grad_(False)
    x = torch.randn(2, 6, 9, 9, dtype=torch.float64)
    calls = []
    for hooked in (False, True):
        if hooked:
            layer.attention.filter_fc.register_forward_hook(lambda *call: calls.append(call))
        actual = recorded(TARGETS[0], layer.compute_attentions, x)
        for name, values in layer.compute_attentions(x).items():
            torch.testing.assert_close(actual[name], values, rtol=1e-9, atol=1e-9)
    assert len(calls) == 2


def test_a_target_is_that_of_a_recording():
    token = export_for.set(TARGETS[0])
    try:
        assert export_target() is None
    finally:
        export_for.reset(token)
    assert recorded(TARGETS[1], export_target) == TARGETS[1] and recorded(None, export_target) is None


@pytest.mark.parametrize('target', [None, *TARGETS], ids=str)
def test_involutions(target):
    torch.manual_seed(0)
    for stride, padding, dilation in (((1, 1), (1, 2), (1, 1)), ((2, 1), (3, 0), (2, 1)), ((1, 2), (0, 4), (1, 2))):
        x = torch.randn(2, 6, 9, 11, dtype=torch.float64)
        geometry = dict(stride=stride, padding=padding, dilation=dilation)
        size = torch.nn.functional.conv2d(x, x.new_ones(1, 6, 3, 5), **geometry).shape[2:]
        weight = torch.randn(2, 3, 3, 5, *size, dtype=torch.float64)
        actual = recorded(target, involution2d, x, weight, **geometry)
        torch.testing.assert_close(actual, involution2d(x, weight, **geometry), rtol=1e-9, atol=1e-9)

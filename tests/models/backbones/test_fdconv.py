"""FDConvResNet and FDConvMobileNetV2: what is dynamic, the printed parameters, and what frozen stages leave."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from dynconv_mm.conversion import warm_start
from dynconv_mm.layers import FDConv2d
from dynconv_mm.models import FDConvMobileNetV2, FDConvResNet
from dynconv_mm.models.backbones import MobileNetV2, ResNet

SMALL = dict(depth=50, stem_channels=8, base_channels=8, kernel_num=4, static_channels=4)


def count(network: type[nn.Module], **arguments) -> int:
    with torch.device('meta'):
        return sum(parameter.numel() for parameter in network(**arguments).parameters())


def test_parameters():
    """The paper prints 3.6M more than the static ResNet50 has, the authors' layers have 3.65M."""
    assert (count(FDConvResNet, depth=50) - count(ResNet, depth=50)) / 1e6 == pytest.approx(3.65, abs=.005)
    assert (count(FDConvMobileNetV2) - count(MobileNetV2)) / 1e6 == pytest.approx(.926, abs=.0005)


def test_convolutions_of_the_residual_path_are_dynamic():
    modules = dict(FDConvResNet(**SMALL).named_modules())
    dynamic = {name for name, module in modules.items() if isinstance(module, FDConv2d)}
    assert len(dynamic) == 48 and all(modules[name].attention is not None for name in dynamic)
    static = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    assert static == ['conv1', *(f'layer{stage}.0.downsample.0' for stage in range(1, 5))]


def test_pointwise_convolutions_of_a_mobilenet_are_dynamic():
    modules = FDConvMobileNetV2(widen_factor=.5, kernel_num=4).modules()
    layers = [module for module in modules if isinstance(module, FDConv2d)]
    assert len(layers) == 33 and {layer.kernel_size for layer in layers} == {(1, 1)}
    for layer in layers:
        assert (layer.attention is None) == (min(layer.in_channels, layer.out_channels) <= 16)


@pytest.mark.parametrize(('freeze_attention', 'learning'), [(False, ('attention', 'band_conv')), (True, ())])
def test_frozen_stages_leave_attentions_and_bands(freeze_attention, learning):
    default = {} if not freeze_attention else dict(freeze_attention=True)
    model = FDConvResNet(**SMALL, frozen_stages=1, norm_eval=True, **default).train()
    for name, parameter in model.layer1.named_parameters():
        assert parameter.requires_grad == any(part in name for part in learning), name
    norms = {name: module.training for name, module in model.layer1.named_modules()
             if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert all(training == ('attention' in name and not freeze_attention) for name, training in norms.items())
    assert any('attention' in name for name in norms)


@pytest.mark.parametrize(('dynamic', 'static', 'arguments'), [
    (FDConvResNet, ResNet, SMALL), (FDConvMobileNetV2, MobileNetV2, dict(widen_factor=.35, kernel_num=4))])
def test_warm_start(dynamic, static, arguments):
    """Exact, but for rounding in float64."""
    torch.manual_seed(0)
    own = {name: value for name, value in arguments.items() if name not in ('kernel_num', 'static_channels')}
    network = nn.ModuleDict(dict(backbone=dynamic(**arguments))).double().eval()
    source = static(**own).double().eval()
    for norm in source.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.running_var, .5, 1.5)
    made = warm_start(network, {f'backbone.{name}': value for name, value in source.state_dict().items()})
    assert not made.unused and not made.impossible
    x = torch.randn(2, 3, 64, 64).double()
    torch.testing.assert_close(network.backbone(x), source(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(('name', 'value'), [('kernel_num', 0), ('reduction', 2), ('static_channels', 0),
                                             ('depth', 19)])
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=name):
        FDConvResNet(**{**SMALL, name: value})

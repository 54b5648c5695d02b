"""A thin backbone of each method and kind, small enough to train in a moment."""
from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.conversion.settle_norms import calm_attentions, random_images, settle_norms
from dynconv_mm.models import (
    SAN,
    CGCResNet,
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DDFResNet,
    DwCondConvResNet,
    DwWeightNetResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    FDConvMobileNetV2,
    FDConvResNet,
    KWMobileNetV2,
    KWResNet,
    LRNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
    SAResNet,
    WeightNetResNet,
    WEResNet,
)

RESNET = dict(depth=18, stem_channels=8, base_channels=8)
MOBILENET = dict(widen_factor=0.1)
BOTTLENECKS = dict(depth=26, stem_channels=16, base_channels=8)
INVOLUTION = dict(BOTTLENECKS, group_channels=8)

#: one network of each method
METHODS = {
    'ODConv': partial(ODConvResNet, kernel_num=2, **RESNET),
    'DyConv': partial(DyConvMobileNetV2, kernel_num=2, **MOBILENET),
    'CondConv': partial(CondConvResNet, kernel_num=2, **RESNET),
    'DCD': partial(DCDResNet, **RESNET),
    'Involution': partial(RedNet, **INVOLUTION),
    'DCDC': partial(DCDCResNet, **INVOLUTION),
    'CGC': partial(CGCResNet, group_channels=4, **RESNET),
    'WeightNet': partial(WeightNetResNet, **RESNET),
    'DDF': partial(DDFResNet, **BOTTLENECKS),
    'LR-Net': partial(LRNet, kernel_size=3, **BOTTLENECKS),
    'SASA': partial(SAResNet, kernel_size=3, heads=4, **BOTTLENECKS),
    'WE': partial(WEResNet, **RESNET),
    'KW': partial(KWResNet, cell_num_ratio=1 / 2, cell_in_ratio=1 / 2, **RESNET),
    'FDConv': partial(FDConvResNet, kernel_num=4, static_channels=4, **RESNET),
}
#: all registered backbones
BACKBONES = {
    'ODConvResNet': METHODS['ODConv'],
    'ODConvMobileNetV2': partial(ODConvMobileNetV2, kernel_num=2, **MOBILENET),
    'DyConvResNet': partial(DyConvResNet, kernel_num=2, **RESNET),
    'DyConvMobileNetV2': METHODS['DyConv'],
    'CondConvResNet': METHODS['CondConv'],
    'CondConvMobileNetV2': partial(CondConvMobileNetV2, kernel_num=2, **MOBILENET),
    'DCDResNet': METHODS['DCD'],
    'DCDMobileNetV2': partial(DCDMobileNetV2, **MOBILENET),
    'RedNet': METHODS['Involution'],
    'DCDCResNet': METHODS['DCDC'],
    'CGCResNet': METHODS['CGC'],
    'WeightNetResNet': METHODS['WeightNet'],
    'DwCondConvResNet': partial(DwCondConvResNet, kernel_num=2, **BOTTLENECKS),
    'DwWeightNetResNet': partial(DwWeightNetResNet, **BOTTLENECKS),
    'DDFResNet': METHODS['DDF'],
    'LRNet': METHODS['LR-Net'],
    'SAResNet': METHODS['SASA'],
    'WEResNet': METHODS['WE'],
    'KWResNet': METHODS['KW'],
    'KWMobileNetV2': partial(KWMobileNetV2, **MOBILENET),
    'FDConvResNet': METHODS['FDConv'],
    'FDConvMobileNetV2': partial(FDConvMobileNetV2, kernel_num=4, static_channels=4, **MOBILENET),
    'SAN': partial(SAN, depth=10, base_channels=32, kernel_size=3),
}


def settle(model: nn.Module, size: tuple[int, int] = (64, 64), batch: int = 8,
           least_variance: float = 0.) -> nn.Module:
    """Give batch norms the statistics of a batch, so that a fresh network in eval mode neither vanishes nor explodes.

    Args:
        size: height and width of the random images, to be those of the images that follow: DCD's residuals
            grow with the square of what a layer gets, so that in a deep network images with other averages overflow.
        least_variance: for small images, whose averages hardly differ: eval mode would magnify all else.

    Returns:
        Module: the same, in eval mode.
    """
    calm_attentions(model)
    settle_norms(model, random_images(batch, 3, *size).to(next(model.parameters()).dtype))
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            norm.running_var.clamp_(min=least_variance)
    return model.eval()

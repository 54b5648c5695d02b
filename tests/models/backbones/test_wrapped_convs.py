"""What is done to the convolutions and norms of a network holds in eval mode as it does in training."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from thin_networks import BACKBONES, settle
from torch import Tensor, distributed, nn
from wrapped import CHANGES, BatchNormAct, global_hooks

from dynconv_mm.layers.conv_arguments import ConvArguments
from dynconv_mm.models.backbones.mobilenet_v2 import InvertedResidual
from dynconv_mm.models.backbones.resnet import ResidualBlock

NETWORKS = ['ODConvResNet', 'DyConvResNet', 'CondConvResNet', 'ODConvMobileNetV2', 'DyConvMobileNetV2',
            'CondConvMobileNetV2', 'RedNet']


@pytest.fixture(scope='module')
def block_of() -> dict[str, tuple[nn.Module, Tensor]]:
    return {}


@pytest.fixture(params=NETWORKS)
def block(request) -> tuple[nn.Module, Tensor]:
    """A network's last block with a dynamic convolution, and features for it."""
    model = settle(BACKBONES[request.param](), size=(32, 32)).double()
    blocks = [block for block in model.modules() if isinstance(block, (ResidualBlock, InvertedResidual))
              and any(dynamic(conv) for conv, _ in pairs(block))]
    seen = []
    hook = blocks[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.randn(2, 3, 48, 40, dtype=torch.float64))
    hook.remove()
    return blocks[-1], seen[0].detach()


def dynamic(conv: nn.Module) -> bool:
    return isinstance(conv, ConvArguments)


def places(block: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Of each convolution and its norm: who holds them, under which names."""
    if isinstance(block, InvertedResidual):
        for module in block.conv:
            yield module, 'conv', module, 'bn'
    else:
        for number, norm in enumerate(block._norms, 1):
            yield block, f'conv{number}', block, norm


def pairs(block: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [(getattr(owner, conv), getattr(other, norm)) for owner, conv, other, norm in places(block)]


def by_hand(block: nn.Module, x: Tensor) -> Tensor:
    """The block, its modules called one after the other."""
    shared = () if block.routing is None else (block.routing(x), )
    out, all_pairs = x, pairs(block)
    if isinstance(block, InvertedResidual):
        for module, (conv, norm) in zip(block.conv, all_pairs):
            out = norm(conv(out, *(shared if dynamic(conv) else ())))
            out = module.activate(out) if module.with_activation else out
        return x + out if block.use_res_connect else out
    for number, (conv, norm) in enumerate(all_pairs, 1):
        out = norm(conv(out, *(shared if takes_shared(conv) else ())))
        out = torch.relu(out) if number < len(all_pairs) else out
    return torch.relu(out + (x if block.downsample is None else block.downsample(x)))

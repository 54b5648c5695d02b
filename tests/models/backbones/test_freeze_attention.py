"""Of frozen stages, the attentions alone can be left to learn; by default they are as frozen as the rest."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.models.backbones import (
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
    ResNet,
)

SMALL = dict(stem_channels=8, base_channels=8)
TINY_MOBILENET = dict(widen_factor=0.1)
INVOLUTION = dict(depth=26, stem_channels=16, base_channels=8, group_channels=8)
# a network with its last stage frozen, and parts of the names of what is not static there
NETWORKS = {
    'ODConvResNet': (partial(ODConvResNet, depth=18, kernel_num=2, frozen_stages=4, **SMALL), ('attention', )),
    'ODConvMobileNetV2': (partial(ODConvMobileNetV2, kernel_num=2, frozen_stages=8, **TINY_MOBILENET), ('attention', )),
    'DyConvResNet': (partial(DyConvResNet, depth=18, kernel_num=2, frozen_stages=4, **SMALL), ('attention', )),
    'DyConvMobileNetV2': (partial(DyConvMobileNetV2, kernel_num=2, frozen_stages=8, **TINY_MOBILENET), ('attention', )),
    'CondConvResNet': (partial(CondConvResNet, depth=18, kernel_num=2, frozen_stages=4, **SMALL), ('routing', )),
    'CondConvMobileNetV2': (partial(CondConvMobileNetV2, kernel_num=2, frozen_stages=8, **TINY_MOBILENET),
                            ('routing', )),
    'DCDResNet': (partial(DCDResNet, depth=18, frozen_stages=4, **SMALL),
                  ('.fc.', '.fc_scale.', '.fc_phi.', 'conv1.p.', 'conv1.q.', 'conv2.p.', 'conv2.q.', 'conv1.bn1.',
                   'conv1.bn2.', 'conv2.bn1.', 'conv2.bn2.')),
    'DCDMobileNetV2': (partial(DCDMobileNetV2, frozen_stages=8, dynamic_layers=('pointwise', 'depthwise'),
                               **TINY_MOBILENET),
                       ('.fc.', '.fc_scale.', '.fc_phi.', '.conv_p.', '.conv_q.', '.conv.p.', '.conv.r.', '.bn1.',
                        '.conv.bn2.')),
    'RedNet': (partial(RedNet, frozen_stages=4, **INVOLUTION), ('conv2.conv1.', 'conv2.conv2.', 'stem.1.conv')),
    'DCDCResNet': (partial(DCDCResNet, frozen_stages=4, **INVOLUTION), ('conv2.lsa.', 'gsi.fc.', 'stem.1.conv')),
}


@pytest.fixture(params=NETWORKS)
def name(request) -> str:
    return request.param


def train(model: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the parameters and of the statistics that a few steps of SGD change."""
    torch.manual_seed(0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, .1) if parameters else None
    image = torch.randn(4, 3, 64, 64)
    for _ in range(2):
        loss = sum(x.sigmoid().mean() for x in model(image))
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after: dict[str, Tensor] = model.state_dict()
    changed = {key for key, value in before.items() if not value.equal(after[key])}
    return {key for key in changed if 'running' not in key and 'num_batches' not in key}, \
        {key.rpartition('.')[0] for key in changed if 'running' in key}


def is_dynamic(key: str, parts: tuple[str, ...]) -> bool:
    return any(part in key for part in parts)


@pytest.mark.parametrize('norm_eval', [False, True])
def test_attentions_learn_and_the_rest_does_not(name, norm_eval):
    make, parts = NETWORKS[name]
    model = make(freeze_attention=False, norm_eval=norm_eval).train()
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    static = {key for key, _ in model.named_parameters()} - learning
    assert learning and all(is_dynamic(key, parts) for key in learning)
    assert static and not any(is_dynamic(key, parts) for key in static)
    changed, statistics = train(model)
    assert changed <= {model_key for model_key in model.state_dict() if is_dynamic(model_key, parts)}
    for stage in (1, len(model.stages)):  # the first and the last frozen one
        if 'CondConv' not in name and (stage, name) not in ((1, 'DCDMobileNetV2'), (8, 'DCDMobileNetV2')):
            assert any(key.startswith(model.stages[stage - 1]) for key in changed), stage
    assert statistics == {key for key, module in model.named_modules()
                          if isinstance(module, _BatchNorm) and is_dynamic(f'{key}.', parts)}


def test_by_default_nothing_learns(name):
    model = NETWORKS[name][0]().train()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules() if isinstance(module, _BatchNorm))
    assert train(model) == (set(), set())


@pytest.mark.parametrize('freeze_attention', [True, False])
def test_norms_of_free_stages(freeze_attention):
    """``norm_eval`` reaches all norms, or all but those in attentions."""
    model = ODConvResNet(depth=18, kernel_num=2, frozen_stages=1, norm_eval=True, freeze_attention=freeze_attention,
                         **SMALL).train()
    training = {key for key, module in model.named_modules() if isinstance(module, _BatchNorm) and module.training}
    attentions = {key for key, module in model.named_modules() if isinstance(module, _BatchNorm) and 'attention' in key}
    assert len(attentions) == 16 and training == (set() if freeze_attention else attentions)
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_trap_of_detectors():
    """In frozen stages neutral attentions move only if they may, and what a static network gave them never does."""
    image = torch.randn(4, 3, 64, 64)
    for freeze_attention in (True, False):
        model = ODConvResNet(depth=18, kernel_num=1, frozen_stages=1, freeze_attention=freeze_attention, **SMALL)
        for layer in model.modules():
            if hasattr(layer, 'neutralize_attention'):
                layer.neutralize_attention()
        before = {key: value.clone() for key, value in model.layer1.state_dict().items()}
        optimizer = torch.optim.SGD(model.train().parameters(), .1)
        for _ in range(3):
            optimizer.zero_grad()
            model(image)[0].sigmoid().mean().backward()
            optimizer.step()
        changed = {key for key, value in model.layer1.state_dict().items() if not value.equal(before[key])}
        if freeze_attention:
            assert not changed
        else:
            assert changed and all('attention' in key for key in changed)
            assert {'0.conv1.attention.channel_fc.weight', '1.conv2.attention.spatial_fc.bias',
                    '1.conv1.attention.bn.running_mean', '0.conv2.attention.fc.weight'} <= changed


@pytest.mark.parametrize('value', [None, 1, 'False'])
def test_bad_freeze_attention(value):
    with pytest.raises(ValueError, match='freeze_attention must be True or False'):
        ResNet(depth=18, freeze_attention=value)


def test_the_static_network_has_none():
    model = ResNet(depth=18, frozen_stages=4, freeze_attention=False, **SMALL).train()
    assert not any(parameter.requires_grad for parameter in model.parameters())

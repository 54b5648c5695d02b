"""KernelWarehouse's networks have the release's parameters and names; their cells are shared and stay so."""
from __future__ import annotations

import copy
import io
import logging
import pickle
import re
from functools import partial

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from shipped_configs import load
from torch import nn

from dynconv_mm.analysis.complexity import build_on_meta
from dynconv_mm.conversion.mobilenet_names import mobilenet_modules, rename
from dynconv_mm.layers.kernel_warehouse import WarehouseLayer
from dynconv_mm.models import KWMobileNetV2, KWResNet

QUARTER = dict(cell_num_ratio=1 / 4, cell_in_ratio=1 / 2, cell_out_ratio=1 / 2)
HALF = dict(QUARTER, cell_num_ratio=1 / 2)
HALF_MOBILENET = dict(HALF, reduction=1 / 32, share_pointwise=False, static_pointwise=5)
HALF_CLASSIFIER = dict(cell_num_ratio=1 / 2, cell_in_ratio=1 / 40, reduction=1 / 32)
FOUR = dict(cell_num_ratio=4.)
R18, R50 = partial(KWResNet, depth=18), partial(KWResNet, depth=50)
SMALL = partial(KWResNet, depth=18, stem_channels=8, base_channels=8)


def on_meta(network, **options) -> nn.Module:
    with torch.device('meta'):
        return network(**options)


def make_classifier(network, **options) -> nn.Module:
    """The backbone and, where the release has it, the classifier of cells."""
    heads = pytest.importorskip('mmpretrain.models.heads')
    from dynconv_mm.models.heads import KWLinearClsHead
    backbone = network(**options)
    kind = partial(KWLinearClsHead, **HALF_CLASSIFIER) if options.get('static_pointwise') else heads.LinearClsHead
    return nn.ModuleDict(dict(backbone=backbone, head=kind(num_classes=1000, in_channels=backbone.feat_dim)))


CASES = {  # by the release's name; millions of parameters as it prints them, but for the first: 4.08 in its README
    'kw1d4x_resnet18': (R18, QUARTER, 4.03), 'kw1d2x_resnet18': (R18, HALF, 7.43), 'kw1x_resnet18': (R18, {}, 11.93),
    'kw2x_resnet18': (R18, dict(cell_num_ratio=2.), 23.24), 'kw4x_resnet18': (R18, FOUR, 45.86),
    'kw1d2x_resnet50': (R50, dict(HALF, nonlocal_basis_ratio=1 / 16), 17.64), 'kw1x_resnet50': (R50, {}, 28.05),
    'kw4x_resnet50': (R50, FOUR, 102.02),
    'kw1d2x_mobilenetv2_100': (KWMobileNetV2, HALF_MOBILENET, 2.65), 'kw1x_mobilenetv2_100': (KWMobileNetV2, {}, 5.17),
    'kw4x_mobilenetv2_100': (KWMobileNetV2, dict(FOUR, share_pointwise=False), 11.38),
    'kw1d2x_mobilenetv2_050': (KWMobileNetV2, dict(HALF_MOBILENET, widen_factor=.5), 1.47),
    'kw1x_mobilenetv2_050': (KWMobileNetV2, dict(widen_factor=.5), 2.85),
    'kw4x_mobilenetv2_050': (KWMobileNetV2, dict(FOUR, share_pointwise=False, widen_factor=.5), 4.65),
}


@pytest.mark.parametrize('name', CASES)
def test_parameters(name):
    network, options, millions = CASES[name]
    with torch.device('meta'):
        model = make_classifier(network, **options)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == millions


def released_name(name: str) -> str:
    """Of a parameter of ours, that in the release."""
    if name.startswith('head.fc.warehouse_manager.weights.0'):
        return 'warehouse_manager.weights.9'
    if name.startswith('head.fc.'):
        return name.replace('head.fc', 'fc')
    theirs = {ours: theirs for theirs, ours in mobilenet_modules(False).items()}
    return rename(name.partition('.')[2], theirs)


@pytest.mark.parametrize('name', ['kw1d4x_resnet18', 'kw1x_resnet18', 'kw1d2x_resnet50', 'kw4x_resnet50',
                                  'kw1d2x_mobilenetv2_100', 'kw1x_mobilenetv2_100'])
def test_names_and_shapes_of_the_released_models(name, released_shapes):
    network, options, _ = CASES[name]
    with torch.device('meta'):
        model = make_classifier(network, **options)
    released = {key.replace('classifier.1.conv', 'fc').replace('classifier', 'fc'): shape
                for key, shape in released_shapes(name).items()}
    assert {released_name(key): list(tensor.shape) for key, tensor in model.state_dict().items()
            if not key.endswith('.temperature')} == released


def test_convnext(released_shapes):
    """mmpretrain's, whose convolutions became dynamic: parameters, names and shapes."""
    pytest.importorskip('mmpretrain.models')
    model = build_on_meta(load('kw/kw1x-convnext-tiny_32xb128-300e_in1k.py'))
    assert sum(parameter.numel() for parameter in model.parameters()) == 39370674
    released = {re.sub(r'^norm\.', 'norm3.', name).replace('dwconv', 'depthwise_conv').replace(
        'pwconv', 'pointwise_conv').replace('head.', 'head.fc.'): [value for value in shape if value > 1] if
        name.endswith('gamma') else shape for name, shape in released_shapes('kw1x_convnext_tiny').items()}
    assert {name.removeprefix('backbone.'): list(tensor.shape) for name, tensor in model.state_dict().items()
            if not name.endswith('.temperature')} == released


def test_which_convolutions_are_static():
    def static(network, **options) -> list[str]:
        return [name for name, module in on_meta(network, **options).named_modules() if isinstance(module, nn.Conv2d)]

    assert static(R18) == ['conv1']
    assert static(R50) == ['conv1', 'layer1.0.conv1', 'layer1.0.downsample.0']
    assert static(R50, deep_stem=True)[:3] == [f'stem.{index}.conv' for index in range(3)]
    assert static(KWMobileNetV2) == []
    assert len(static(KWMobileNetV2, static_pointwise=2)) == 7


# Cells are shared, and stay so.


def shares(model: nn.Module) -> bool:
    """Whether all layers read the cells that the model owns, and those once."""
    owned = {id(cells) for name, cells in model.named_parameters() if 'warehouse_manager' in name}
    layers = [layer for layer in model.modules() if isinstance(layer, WarehouseLayer)]
    return bool(layers) and all(id(layer.cells) in owned for layer in layers) \
        and len([name for name in model.state_dict() if name.startswith('warehouse_manager.weights.')]) == len(owned)


def saved_whole(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved_whole,
                                    lambda model: ExponentialMovingAverage(model).module],
                         ids=['deepcopy', 'pickle', 'torch.save', 'EMA'])
def test_copies_have_cells_of_their_own(copied):
    model, x = SMALL().eval(), torch.randn(2, 3, 32, 32)
    before = model(x)[0]
    other = copied(model).eval()
    assert shares(model) and shares(other)
    torch.testing.assert_close(other(x)[0], before)
    with torch.no_grad():
        for cells in other.warehouse_manager.weights:
            cells.mul_(2)
    assert not torch.allclose(other(x)[0], before)
    torch.testing.assert_close(model(x)[0], before)


@pytest.mark.parametrize('moved', [lambda model: model.double(),
                                   lambda model: model.to(memory_format=torch.channels_last),
                                   lambda model: model.to('meta').to_empty(device='cpu')],
                         ids=['double', 'channels_last', 'to_empty'])
def test_moved_models(moved):
    model = moved(SMALL()).eval()
    assert shares(model)
    weights = SMALL().state_dict()
    model.load_state_dict(weights)
    assert model(torch.randn(2, 3, 32, 32).to(next(model.parameters()).dtype))[0].isfinite().all()


def test_weights_are_assigned_to_a_model_on_meta():
    source, x = SMALL(temperature=.5).eval(), torch.randn(2, 3, 32, 32)
    model = on_meta(SMALL)
    model.load_state_dict(source.state_dict(), assign=True)
    assert shares(model)
    torch.testing.assert_close(model.eval()(x), source(x))


def test_a_functional_call_takes_other_cells():
    model, x = SMALL().eval(), torch.randn(2, 3, 32, 32)
    other = {name: torch.randn_like(value) for name, value in model.named_parameters() if 'warehouse' in name}
    expected = copy.deepcopy(model)
    expected.load_state_dict({**model.state_dict(), **other})
    torch.testing.assert_close(torch.func.functional_call(model, other, x), expected(x))


def test_every_parameter_learns():
    model = SMALL(temperature=.5).train()
    model(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
    assert not [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()]


@pytest.mark.parametrize(('network', 'frozen_stages', 'frozen'), [
    (SMALL, -1, []), (SMALL, 1, []), (SMALL, 2, ['stage1']), (SMALL, 4, ['stage1', 'stage2', 'stage3', 'stage4']),
    (partial(KWMobileNetV2, widen_factor=.1), 0, ['stem']),
    (partial(KWMobileNetV2, widen_factor=.1), 3, ['stem', 'depthwise1', 'pointwise1', 'pointwise2', 'depthwise2']),
], ids=str)
def test_frozen_stages_freeze_the_cells_that_they_alone_use(network, frozen_stages, frozen):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        model = network(frozen_stages=frozen_stages, out_indices=(0, 1, 2, 3))
    finally:
        logger.removeHandler(handler)
    warehouses = model.train().warehouse_manager
    assert [name for name, cells in zip(warehouses.names, warehouses.weights) if not cells.requires_grad] == frozen
    told = [line for line in lines if line.startswith(f'frozen_stages={frozen_stages} of ')]
    assert len(told) == (frozen_stages >= 0)
    assert not told or f'cells are frozen: {", ".join(frozen) or "none"};' in told[0]
    if frozen_stages < 4:
        sum(maps.square().sum() for maps in model(torch.randn(2, 3, 64, 64))).backward()
    for name, cells in zip(warehouses.names, warehouses.weights):
        unused = type(model) is KWMobileNetV2 and name.endswith(('5', '6'))  # behind what is put out
        assert (cells.grad is None) == (name in frozen or unused)


@pytest.mark.parametrize(('network', 'name', 'value'), [
    (R18, 'depth', 19), (R18, 'cell_num_ratio', 0), (R18, 'temperature', 2.), (KWMobileNetV2, 'share_pointwise', 1),
    (KWMobileNetV2, 'static_pointwise', 7), (KWMobileNetV2, 'static_pointwise', True)])
def test_bad_arguments(network, name, value):
    with pytest.raises(ValueError, match=name):
        network(**{name: value})


def test_a_checkpoint_of_another_ratio():
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"warehouse_manager.weights.0 \('stage1'\) is \[56, 8, 8, 1, 1\] in it, "
                                               r'\[112, 8, 8, 1, 1\] here.*cell_num_ratio'):
            SMALL(cell_num_ratio=2.).load_state_dict(SMALL().state_dict(), strict=strict)

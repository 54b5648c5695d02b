"""KernelWarehouse in place of static convolutions: what starts the same, and which layers share cells."""
from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from dynconv_mm import KWConv2d, build_warehouses, dynamicize
from dynconv_mm.conversion import init_from_static, static_counterpart, warm_start
from dynconv_mm.layers import KWLinear
from dynconv_mm.layers.kernel_warehouse import WarehouseLayer
from dynconv_mm.models import KWResNet
from dynconv_mm.models.backbones import ResNet

KW = dict(type='KWConv2d')
X = torch.linspace(-3, 3, 2 * 3 * 16 * 12).sin().view(2, 3, 16, 12).double()


class Block(nn.Module):

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x) + self.conv2(self.conv1(x).relu())


class Network(nn.Module):
    """A stem, two stages, and a head whose channels are no multiples of one another's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stages = nn.ModuleList([nn.Sequential(Block(8, 8, 1), Block(8, 8, 1)), nn.Sequential(Block(8, 16, 2))])
        self.head = nn.ModuleList([nn.Conv2d(16, 9, 3), nn.Conv2d(9, 6, 1), nn.Conv2d(6, 6, 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        for conv in self.head:
            x = conv(x)
        return x


# The same function.


@pytest.mark.parametrize('temperature', [0, .3, 1])
@pytest.mark.parametrize('options', [dict(), dict(cell_num_ratio=2.5, cell_in_ratio=1 / 2),
                                     dict(cell_num_ratio=4., nonlocal_basis_ratio=1 / 2)], ids=str)
@pytest.mark.parametrize('geometry', [dict(padding=1, stride=2), dict(groups=2, bias=False), dict(kernel_size=1)],
                         ids=str)
def test_the_same_function(geometry, options, temperature):
    """At the layer's temperature, for any input; at others a part differs by a thousandth."""
    arguments = {**dict(in_channels=8, out_channels=6, kernel_size=3), **geometry}
    model = nn.Sequential(*(KWConv2d(**arguments, **options, warehouse='both', temperature=temperature)
                            for _ in range(2)))
    build_warehouses(model)
    model.double()
    for dynamic in model[:2]:
        static = nn.Conv2d(**arguments).double()
        init_from_static(static, dynamic)
        x = torch.randn(3, 8, 7, 9, dtype=torch.float64)
        for mode in (True, False):
            torch.testing.assert_close(dynamic.train(mode)(x), static(x), rtol=0, atol=1e-12)
        for other in (0, .5, 1):
            dynamic.set_temperature(other)
            torch.testing.assert_close(dynamic(x), static(x), rtol=2e-3, atol=2e-3)
        dynamic.set_temperature(temperature)
    assert not torch.equal(model[0].share.own, model[1].share.own)


def test_linear():
    static, dynamic = nn.Linear(6, 4).double(), KWLinear(6, 4, cell_in_ratio=1 / 3, cell_out_ratio=1 / 2).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    init_from_static(static, dynamic)
    torch.testing.assert_close(dynamic(x), static(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match='out_features and in_features must be the same'):
        init_from_static(nn.Linear(6, 5), KWLinear(6, 4))


def test_all_parts_learn_from_there():
    static, dynamic = nn.Conv2d(8, 6, 3).double(), KWConv2d(8, 6, 3, cell_in_ratio=1 / 2).double()
    init_from_static(static, dynamic)
    before = {name: value.clone() for name, value in dynamic.named_parameters()}
    optimizer, x = torch.optim.SGD(dynamic.parameters(), .1), torch.randn(5, 8, 7, 9, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        (dynamic(x) - 1).square().mean().backward()
        optimizer.step()
    assert not [name for name, value in dynamic.named_parameters() if value.equal(before[name])]


def test_fewer_cells_than_parts():
    with pytest.raises(ValueError, match='cell_num_ratio=0.5 has fewer cells than parts'):
        init_from_static(nn.Conv2d(8, 6, 3), KWConv2d(8, 6, 3, cell_num_ratio=1 / 2))


@pytest.mark.parametrize(('options', 'exact'), [(dict(), True), (dict(cell_num_ratio=4.), True),
                                                (dict(cell_num_ratio=1 / 2), False)], ids=str)
def test_warm_start_of_a_network(options, exact):
    small = dict(depth=18, stem_channels=8, base_channels=8)
    model = nn.ModuleDict(dict(backbone=KWResNet(**small, **options))).double().eval()
    static = ResNet(**small).double().eval()
    result = warm_start(model, static.state_dict())
    assert bool(result.impossible) != exact and result.carried == ['backbone']
    assert not [name for name, _ in result.static.named_parameters() if 'warehouse' in name] or not exact
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found, expected = model['backbone'](images)[0], static(images)[0]
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9) == exact
    torch.testing.assert_close(model['backbone'].conv1.weight, static.conv1.weight)


def test_static_counterpart():
    model = KWResNet(depth=18, stem_channels=8, base_channels=8)
    static = static_counterpart(model)
    assert static.state_dict().keys() == ResNet(depth=18, stem_channels=8, base_channels=8).state_dict().keys()
    assert static.train()(torch.randn(2, 3, 32, 32))[0].shape == (2, 64, 1, 1)
    assert all(layer.cells is not None for layer in model.modules() if isinstance(layer, WarehouseLayer))


# Any model.


def test_groups_by_stage_and_kind():
    model = Network().double().eval()
    expected = model(X)
    report = dynamicize(model, KW)
    torch.testing.assert_close(model(X), expected, rtol=1e-9, atol=1e-9)
    assert report.warehouses == {
        'stages.0': (2 * 9 + 2, 8, 8, 1, 1), 'stages.0 depthwise': (2 * 9, 8, 1, 1, 1),
        'stages.1': (9 + 1, 16, 8, 1, 1), 'stages.1 depthwise': (9, 16, 1, 1, 1),
        'head': (9, 9, 16, 1, 1), 'head (2)': (1, 6, 9, 1, 1),
        'head (3)': (1, 6, 6, 1, 1)}
    assert list(report.kept) == ['stem'] and len(report.replaced) == 12
    assert report.params_after == sum(parameter.numel() for parameter in model.parameters())
    text = str(report)
    assert '7 warehouses' in text and '8 × 8' in text and 'stages.1 depthwise' in text
    other = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    torch.testing.assert_close(other(X), expected, rtol=1e-9, atol=1e-9)


def test_one_warehouse_for_all():
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 16, 1))
    report = dynamicize(model, dict(KW, warehouse='all', cell_num_ratio=2.))
    assert report.warehouses == {'all': (2 * (9 + 2), 8, 8, 1, 1)}
    assert model[0].cells is model[1].cells is model.warehouse_manager.weights[0]
    assert dynamicize(nn.Sequential(nn.Conv2d(8, 8, 1)), KW).warehouses == {'model': (1, 8, 8, 1, 1)}


def test_frozen_convolutions_stay_frozen():
    model = nn.ModuleDict(dict(a=nn.Sequential(nn.Conv2d(8, 8, 3)), b=nn.Sequential(nn.Conv2d(8, 8, 3))))
    model['a'].requires_grad_(False)
    dynamicize(model, KW)
    assert [cells.requires_grad for cells in model.warehouse_manager.weights] == [False, True]


def test_a_static_checkpoint_is_carried_over():
    static, model = Network().double().eval(), Network().double().eval()
    nn.init.normal_(static.head[0].weight)
    dynamicize(model, KW)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    assert str(model.load_state_dict(static.state_dict())) == '<All keys matched successfully>'
    torch.testing.assert_close(model(X), static(X), rtol=1e-9, atol=1e-9)
    model.load_state_dict(own)
    torch.testing.assert_close(model.state_dict(), own)
    del own['warehouse_manager.weights.0']
    assert model.load_state_dict(own, strict=False).missing_keys == ['warehouse_manager.weights.0']


def test_in_a_config():
    """A model that starts from what its own ``init_weights`` makes of the static convolutions."""
    pytest.importorskip('mmpretrain.models')
    cfg = dict(type='Dynamicized', module='mmpretrain.MobileNetV2', widen_factor=.25, op=KW)
    model = MODELS.build(cfg)
    model.init_weights()
    last = model.conv2.conv
    assert isinstance(last, KWConv2d) and model.state_dict()['warehouse_manager.weights.0'].any()
    model.eval()
    assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 1280, 1, 1)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(op=dict(KW, cell_num_ratio=1 / 2)), 'op has cell_num_ratio=0.5'),
    (dict(op=dict(KW, temperature=2.)), 'KWConv2d does not fit: temperature'),
    (dict(op=dict(KW, warehouse='all', cell_out_ratio=2.)), "layers of warehouse 'all' have no cell in common")])
def test_bad_arguments(arguments, message):
    model = Network()
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        dynamicize(model, **arguments)
    assert list(model.state_dict()) == before


def test_a_model_with_warehouses():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), KWConv2d(8, 8, 1, warehouse='a'))
    build_warehouses(model)
    with pytest.raises(ValueError, match='has warehouses already'):
        dynamicize(model, KW)


def test_without_the_function_there_may_be_fewer_cells():
    model = Network()
    report = dynamicize(model, dict(KW, cell_num_ratio=1 / 2), keep_function=False)
    assert report.params_after < report.params_before * 4 and model(X.float()).isfinite().all()

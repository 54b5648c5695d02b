"""Warehouses of any model: who shares, who owns, and what is refused."""
from __future__ import annotations

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import nn

from dynconv_mm.layers import KernelWarehouse, KWConv2d, KWLinear, build_warehouses

CFG = dict(type='KWConv2d', warehouse='all')


def conv(in_channels: int = 8, out_channels: int = 8, warehouse: str | None = 'all', **options) -> KWConv2d:
    return KWConv2d(in_channels, out_channels, 3, padding=1, warehouse=warehouse, **options)


def test_layers_share_by_name():
    model = nn.Sequential(conv(), conv(8, 16, 'b'), nn.Sequential(conv(16, 8), conv(warehouse=None)))
    warehouses = build_warehouses(model)
    assert warehouses is model.warehouse_manager and warehouses.names == ['all', 'b']
    assert [tuple(cells.shape) for cells in warehouses.weights] == [(27, 8, 8, 1, 1), (9, 16, 8, 1, 1)]
    assert model[0].cells is model[2][0].cells is warehouses.weights[0] and model[1].cells is warehouses.weights[1]
    assert model[2][1].cells is model[2][1].warehouse_manager.weights[0]
    assert [(layer.share.start, layer.share.stop) for layer in (model[0], model[2][0])] == [(0, 9), (9, 27)]
    names = [name for name, _ in model.named_parameters() if 'warehouse' in name]
    assert names == ['2.1.warehouse_manager.weights.0', 'warehouse_manager.weights.0', 'warehouse_manager.weights.1']
    assert model(torch.randn(2, 8, 5, 5)).shape == (2, 8, 5, 5)
    assert repr(warehouses).startswith('KernelWarehouse(\n  all: [27, 8, 8, 1, 1], b: [9, 16, 8, 1, 1]')


def test_modules_of_a_config():
    """Any module that takes a ``conv_cfg``, here a block of mmcv."""
    model = MODELS.build(dict(type='Warehoused', module=dict(type='ConvModule', in_channels=8, out_channels=8,
                                                             kernel_size=3, conv_cfg=CFG)))
    assert type(model) is ConvModule and model.conv.cells is model.warehouse_manager.weights[0]
    assert model(torch.randn(2, 8, 5, 5)).shape == (2, 8, 3, 3)


def test_in_a_neck():
    pytest.importorskip('mmdet.models.necks')
    from mmdet.registry import MODELS as DETECTION
    neck = DETECTION.build(dict(type='Warehoused', module='mmdet.FPN', in_channels=[4, 8], out_channels=8, num_outs=3,
                                conv_cfg=dict(type='KWConv2d', warehouse='fpn')))
    assert len(neck.warehouse_manager.weights) == 1
    neck.init_weights()
    maps = neck([torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)])
    assert [tuple(x.shape) for x in maps] == [(2, 8, 8, 8), (2, 8, 4, 4), (2, 8, 2, 2)]


@pytest.mark.parametrize('module', [None, 3, dict(in_channels=8)])
def test_a_module_that_is_none(module):
    with pytest.raises(ValueError, match='module must be'):
        MODELS.build(dict(type='Warehoused', module=module))


def test_a_warehouse_that_was_never_built():
    layer, x = conv(), torch.randn(2, 8, 5, 5)
    for use in (lambda: layer(x), lambda: layer.cells, lambda: layer.compute_attentions(x), layer.neutralize_attention):
        with pytest.raises(ValueError, match=r"warehouse 'all' of this KWConv2d was never built: call "
                                             r'dynconv_mm.build_warehouses\(model\)'):
            use()
    build_warehouses(nn.Sequential(layer))
    assert layer(x).shape == (2, 8, 5, 5)


def test_models_without_a_layer_to_serve():
    for model in (nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Sequential(conv(warehouse=None))):
        with pytest.raises(ValueError, match='no layer whose warehouse is to be built'):
            build_warehouses(model)


def test_a_model_that_is_built_already():
    model = nn.Sequential(conv())
    build_warehouses(model)
    with pytest.raises(ValueError, match='no layer whose warehouse'):
        build_warehouses(model)
    model.append(conv())
    with pytest.raises(ValueError, match='has its warehouses already'):
        build_warehouses(model)


def test_two_models_do_not_share():
    model = nn.Sequential(conv(), conv())
    build_warehouses(model)
    with pytest.raises(ValueError, match='0 has its cells in a warehouse that is no part of this Sequential: two mod'):
        build_warehouses(nn.Sequential(model[0], conv()))
    part = copy.deepcopy(model[0])  # a layer alone takes its cells along
    assert part.cells is not model[0].cells and torch.equal(part.cells, model[0].cells)
    assert model[0].cells is model[1].cells


@pytest.mark.parametrize(('layers', 'message'), [
    ([conv(9, 9, cell_out_ratio=.5), conv(9, 9, cell_out_ratio=.5)],
     r"layers of warehouse 'all' have no cell in common: .* it maps 9 to 4 channels.*\(9 → 9, 9 → 9\)"),
    ([conv(), conv(cell_num_ratio=2.)],
     "cell_num_ratio must be the same for all layers of warehouse 'all', but is 1, 2"),
    ([conv(), KWLinear(8, 8, warehouse='all')], "warehouse 'all' has convolutions and fully connected layers"),
], ids=['no divisor', 'ratios', 'kinds'])
def test_layers_without_a_common_cell(layers, message):
    with pytest.raises(ValueError, match=message):
        build_warehouses(nn.Sequential(*layers))
    assert all(layer.attention is None for layer in layers)  # as they were


def test_initialization_of_a_model_fills_all_cells():
    model = nn.Sequential(conv(), conv(8, 24, cell_num_ratio=1.))
    build_warehouses(model)
    cells = model[0].cells
    nn.init.zeros_(cells)
    for layer in model[:2]:
        layer.init_weights()
    assert cells.flatten(1).any(1).all() and isinstance(model.warehouse_manager, KernelWarehouse)

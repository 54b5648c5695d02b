"""fully_shard of a convolution alone, whose hooks gather its parameters: a norm behind it must not go past them."""
from __future__ import annotations

import pytest
import torch
from conv_layers import CHANNELS, LAYERS, make_features, make_layer, randomize
from torch import distributed, nn

from dynconv_mm.layers import KWConv2d, build_warehouses
from dynconv_mm.layers.conv_norm_act import ConvNormAct

fsdp = pytest.importorskip('torch.distributed.fsdp')
if not hasattr(fsdp, 'fully_shard'):
    pytest.skip('torch before 2.6 has no torch.distributed.fsdp.fully_shard', allow_module_level=True)


@pytest.fixture(scope='module')
def mesh():
    """Of this process alone."""
    from torch.distributed.device_mesh import init_device_mesh
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh('cpu', (1, ))
    distributed.destroy_process_group()


@pytest.mark.one_at_a_time('name', 'batch', 'gradients')
@pytest.mark.parametrize('gradients', [True, False], ids=['grad', 'no_grad'])
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', LAYERS)
def test_a_sharded_part_of_a_block(mesh, name, batch, gradients):
    x = make_features(batch, dtype=torch.float64)
    for part in ('conv', 'bn'):
        block = ConvNormAct(CHANNELS, CHANNELS, 3, padding=1, norm_cfg=dict(type='BN'))
        block.conv = make_layer(name)
        randomize(block).double().eval()
        expected = torch.relu(block.bn(block.conv(x))).detach()
        fsdp.fully_shard(getattr(block, part), mesh=mesh)
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)


def test_cells_belong_to_the_outermost_part(mesh):
    """Layers that are sharded by themselves share the cells of the model around them, in all passes."""
    def make() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(*(KWConv2d(CHANNELS, CHANNELS, 3, padding=1, warehouse='all') for _ in range(2))).double()
        build_warehouses(model)
        return model

    plain, sharded, x = make(), make(), make_features(2, dtype=torch.float64)
    for part in (*sharded[:2], sharded):
        fsdp.fully_shard(part, mesh=mesh)
    gradients = []
    for model in (plain, sharded):
        for _ in range(2):
            model.zero_grad()
            model(x).square().sum().backward()
        gradients.append({name: getattr(value.grad, 'full_tensor', lambda value=value: value.grad)()
                          for name, value in model.named_parameters()})
    assert list(gradients[0]) == list(gradients[1]) and 'warehouse_manager.weights.0' in gradients[0]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)

"""KWConv2d and KWLinear are the release's layers and the paper's equations."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import Golden
from torch import Tensor, nn
from torch.nn import functional as F

from dynconv_mm.layers import KWConv2d, KWLinear, build_warehouses, kernel_warehouse
from dynconv_mm.layers.kernel_warehouse import WarehouseLayer, one_hot_cells

RATIOS = dict(cell_num_ratio='cell_num_ratio', cell_inplane_ratio='cell_in_ratio', cell_outplane_ratio='cell_out_ratio',
              nonlocal_basis_ratio='nonlocal_basis_ratio', reduction='reduction')  # by the release's names
#: layers in order; those of the same warehouse share cells
NETWORKS = {
    '1x': [dict(in_channels=6, out_channels=8, kernel_size=3, padding=1, stride=(2, 1)),
           dict(in_channels=8, out_channels=4, kernel_size=(1, 3), dilation=2, padding=2, bias=False),
           dict(in_channels=4, out_channels=12, kernel_size=2, padding='same', padding_mode='reflect')],
    '2.5x': [dict(in_channels=6, out_channels=9, kernel_size=3, padding=(2, 0), cell_num_ratio=2.5),
             dict(in_channels=9, out_channels=6, kernel_size=1, groups=3, cell_num_ratio=2.5)],
    '1/2x': [dict(in_channels=6, out_channels=8, kernel_size=3, cell_num_ratio=.5, cell_in_ratio=.5, cell_out_ratio=.5),
             dict(in_channels=8, out_channels=4, kernel_size=1, cell_num_ratio=.5, cell_in_ratio=.5,
                  cell_out_ratio=.5)],
    '1/3x, thin': [dict(in_channels=6, out_channels=5, kernel_size=3, cell_num_ratio=.3),
                   dict(in_channels=5, out_channels=7, kernel_size=3, padding=1, cell_num_ratio=.3)],
    'bases': [dict(in_channels=6, out_channels=4, kernel_size=3, nonlocal_basis_ratio=.5),
              dict(in_channels=4, out_channels=4, kernel_size=3, nonlocal_basis_ratio=.5),
              dict(in_channels=4, out_channels=2, kernel_size=1, nonlocal_basis_ratio=.5)],
    'depthwise': [dict(in_channels=6, out_channels=6, groups=6, kernel_size=3, padding=1, norm_cfg=dict(type='LN')),
                  dict(in_channels=6, out_channels=12, groups=6, kernel_size=3, norm_cfg=None, reduction=1.)],
}


class Chain(nn.Module):
    """Layers one after the other, with ReLU between."""

    def __init__(self, layers: list[dict], warehouses: list[str]) -> None:
        super().__init__()
        for index, (arguments, warehouse) in enumerate(zip(layers, warehouses), 1):
            self.add_module(f'conv{index}', KWConv2d(**{**arguments, 'warehouse': warehouse}))
        build_warehouses(self)

    def layers(self) -> list[KWConv2d]:
        return [module for module in self.children() if isinstance(module, KWConv2d)]

    def forward(self, x: Tensor) -> Tensor:
        layers = self.layers()
        for layer in layers[:-1]:
            x = layer(x).relu()
        return layers[-1](x)


def set_temperature(model: nn.Module, temperature: float) -> None:
    for module in model.modules():
        if isinstance(module, WarehouseLayer):
            module.set_temperature(temperature)


def make_network(name: str, dtype: torch.dtype = torch.float64) -> Chain:
    torch.manual_seed(0)
    network = Chain(NETWORKS[name], ['all'] * len(NETWORKS[name])).to(dtype)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=.5)
    return network


def make_input(batch: int = 3, channels: int = 6) -> Tensor:
    return torch.randn(batch, channels, 9, 8, generator=torch.Generator().manual_seed(1)).double()


# The release.


@pytest.mark.parametrize('name', [f'kw_{index}' for index in range(5)])
def test_golden(name, monkeypatch):
    golden = Golden(name)
    meta = golden.meta
    warehouses = [layer['warehouse_name'] for layer in meta['layers']]
    order = list(dict.fromkeys(warehouses))
    layers = []
    for layer in meta['layers']:
        arguments = {key.replace('_planes', '_channels'): value for key, value in layer.items()
                     if key != 'warehouse_name'}
        for key, value in meta['manager'].items():  # a ratio for all warehouses or for each
            arguments[RATIOS[key]] = value[order.index(layer['warehouse_name'])] if isinstance(value, list) else value
        layers.append(arguments)
    network = Chain(layers, warehouses).double().eval()
    assert golden.gradients.keys() == dict(network.named_parameters()).keys()
    network.load_state_dict(golden.state_dict, strict=True)
    set_temperature(network, .6)
    # the release's β stays float32, and with it τβ
    with monkeypatch.context() as patch:
        patch.setattr(kernel_warehouse, 'one_hot_cells',
                      lambda *arguments: one_hot_cells(*arguments) * np.float32(.6).item() / .6)
        torch.testing.assert_close(network(golden.arrays['x'].double()), golden.arrays['y_eval_T06'], rtol=0, atol=1e-9)
    set_temperature(network, .3)
    golden.check(network)  # at a temperature of 0, which the release does not save


# The equations, literally.


def literal_targets(ratio: float, mixtures: int, start: int, cells: int) -> list[int | None]:
    """The cell of each mixture as the paper tells it; None is no cell."""
    if ratio >= 1:
        return [start + i * math.floor(ratio) for i in range(mixtures)]
    every, targets = math.floor(1 / ratio), []
    for i in range(mixtures):
        if i % every == (i // every) % every and start < cells:
            targets.append(start)
            start += 1
        else:
            targets.append(None)
    return targets


def literal_attention(layer: WarehouseLayer, pooled: Tensor, mixtures: int, start: int, own: int, cells: int,
                      temperature: float) -> Tensor:
    """α of one sample, mixture by mixture, from the layer's parameters; Tensor[m, n]."""
    tensors = dict(layer.attention.named_parameters())
    hidden = pooled @ tensors['fc1.weight'].T + tensors.get('fc1.bias', 0)
    norm = layer.attention.norm1
    if isinstance(norm, nn.LayerNorm):
        hidden = (hidden - hidden.mean()) / torch.sqrt(hidden.var(correction=0) + norm.eps) * norm.weight + norm.bias
    elif isinstance(norm, nn.BatchNorm1d):
        hidden = (hidden - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias
    logits = (tensors['fc2.weight'] @ hidden.clamp(min=0) + tensors.get('fc2.bias', 0)).view(mixtures, -1)
    if 'fc3.weight' in tensors:
        others = logits[:, own:-1] @ tensors['fc3.weight'].T
        logits = torch.cat([others[:, :start], logits[:, :own], others[:, start:], logits[:, -1:]], 1)
        logits = logits + tensors['basis_bias'].view(mixtures, -1)
    beta = torch.zeros(mixtures, cells, dtype=logits.dtype)
    for i, target in enumerate(literal_targets(layer.cell_num_ratio, mixtures, start, cells)):
        if target is not None:
            beta[i, target] = 1
    alpha = logits[:, :-1] / (logits.abs().sum(1, keepdim=True) + 1e-3)
    return temperature * beta + (1 - temperature) * alpha


def literal(network: Chain, x: Tensor, options: list[dict], temperature: float) -> Tensor:
    """Sample by sample and part by part: the kernel of each layer, and torch's convolution by it."""
    cells = network.warehouse_manager.weights[0]
    n, cell_out, cell_in = cells.shape[:3]
    samples = []
    for b in range(len(x)):
        y, start = x[b:b + 1], 0
        for number, (layer, arguments) in enumerate(zip(network.layers(), options)):
            outs, ins = layer.out_channels // cell_out, layer.in_channels // layer.groups // cell_in
            height, width = layer.kernel_size
            mixtures = outs * ins * height * width
            own = math.floor(layer.cell_num_ratio * mixtures)
            own = n - start if number == len(options) - 1 else own
            alpha = literal_attention(layer, y[0].mean((1, 2)), mixtures, start, own, n, temperature)
            parts = iter((alpha[:, :, None, None] * cells[None, :, :, :, 0, 0]).sum(1))
            kernel = torch.stack([torch.stack([torch.cat([torch.cat([next(parts) for _ in range(ins)], 1)
                                                          for _ in range(outs)])
                                               for _ in range(width)], 2) for _ in range(height)], 2)
            conv = nn.Conv2d(dtype=x.dtype, **{name: value for name, value in arguments.items() if name in (
                'in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups', 'bias',
                'padding_mode')})
            parameters = {'weight': kernel, **({} if layer.bias is None else {'bias': layer.bias})}
            y = torch.func.functional_call(conv, parameters, y, strict=True)
            y = y if number == len(options) - 1 else y.relu()
            start += own
        samples.append(y)
    return torch.cat(samples)


@pytest.mark.filterwarnings('ignore:Using padding=.same. with even kernel')
@pytest.mark.parametrize('temperature', [0, .4, 1])
@pytest.mark.parametrize('name', NETWORKS)
def test_equation(name, temperature, assert_equal_in_value_and_gradient):
    network, x = make_network(name).eval(), make_input().requires_grad_()
    set_temperature(network, temperature)
    inputs = {'x': x, **{key: value for key, value in network.named_parameters()
                         if temperature < 1 or 'attention' not in key}}
    assert_equal_in_value_and_gradient(lambda: network(x), lambda: literal(network, x, NETWORKS[name], temperature),
                                       inputs)


@pytest.mark.parametrize('shape', [(3, 7), (8, ), (2, 5, 8), (2, 8, 1, 1)], ids=str)
def test_no_features_of_a_linear_layer(shape):
    with pytest.raises(ValueError, match=rf'input must be .*\[batch, in_features=8\], but is .*\[{shape[0]}'):
        KWLinear(8, 10)(torch.zeros(shape))


@pytest.mark.parametrize('options', [dict(), dict(cell_num_ratio=.5, cell_in_ratio=1 / 4), dict(bias=False),
                                     dict(cell_num_ratio=2., cell_out_ratio=1 / 5, cell_in_ratio=1 / 2)], ids=str)
def test_linear(options, assert_equal_in_value_and_gradient):
    """It never makes the matrix; the equation does."""
    torch.manual_seed(0)
    layer = KWLinear(8, 10, **options).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=.5)
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)

    def by_matrices() -> Tensor:
        n, cell_out, cell_in, _ = layer.cells.shape
        outputs = []
        for sample in x:
            alpha = literal_attention(layer, sample, 10 // cell_out * (8 // cell_in), 0, n, n, 0)
            parts = torch.einsum('mn,noi->moi', alpha, layer.cells[..., 0])
            matrix = torch.cat([torch.cat(list(row), 1) for row in parts.unflatten(0, (-1, 8 // cell_in))])
            outputs.append(F.linear(sample, matrix, layer.bias))
        return torch.stack(outputs)

    assert_equal_in_value_and_gradient(lambda: layer(x), by_matrices, {'x': x, **dict(layer.named_parameters())})


# Structure.


def test_structure():
    layer = KWConv2d(32, 64, 3, bias=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items() if 'norm1' not in name}
    assert shapes == {'temperature': (), 'attention.fc1.weight': (16, 32), 'attention.fc2.weight': (90, 16),
                      'attention.fc2.bias': (90, ), 'warehouse_manager.weights.0': (9, 64, 32, 1, 1)}
    assert layer.extra_repr() == ('32, 64, kernel_size=(3, 3), stride=(1, 1), bias=False, warehouse=None')
    assert 'cell_num_ratio=0.5' in KWConv2d(8, 8, 1, cell_num_ratio=.5).extra_repr()
    assert repr(KWLinear(8, 4, bias=False)).startswith('KWLinear(\n  8, 4, bias=False, warehouse=None')
    assert KWConv2d(512, 8, 1).attention.fc1.weight.shape == (32, 512)


@pytest.mark.parametrize(('ratio', 'targets'), [
    (1, [3, 4, 5, 6, 7, 8, 9, 10]), (4, [3, 7, 11, 15, 19, 23, 27, 31]), (.5, [3, 40, 40, 4, 5, 40, 40, 6]),
    (.25, [3, 40, 40, 40, 40, 4, 40, 40]), (2.5, [3, 5, 7, 9, 11, 13, 15, 17])])
def test_cells_at_the_start(ratio, targets):
    beta = one_hot_cells(torch.zeros(1, dtype=torch.float64), 8, 3, ratio, 40)
    assert beta.shape == (8, 41) and beta.dtype == torch.float64 and beta.sum() == 8
    assert beta.argmax(1).tolist() == targets


@pytest.mark.parametrize('name', NETWORKS)
def test_initialization(name):
    """Each layer's own cells as one kernel, FCs Kaiming-normal, biases 0."""
    network = Chain([{**arguments, 'in_channels': 16 * arguments['in_channels'], 'groups': 1,
                      'out_channels': 16 * arguments['out_channels']} for arguments in NETWORKS[name]],
                    ['all'] * len(NETWORKS[name]))
    for layer in network.layers():
        own = layer.share.own
        assert own.std().item() == pytest.approx(math.sqrt(2 / (own.shape[0] * own.shape[1])), rel=.1)
        assert layer.attention.fc2.weight.std().item() == pytest.approx(
            math.sqrt(2 / len(layer.attention.fc2.weight)), rel=.1)
        biases = [layer.attention.basis_bias if layer.attention.bases else layer.attention.fc2.bias]
        assert not any(bias.any() for bias in biases + ([] if layer.bias is None else [layer.bias]))


def test_empty_batch():
    assert make_network('1/2x')(make_input(0)).shape == (0, 4, 7, 6)
    assert KWLinear(8, 4).eval()(torch.randn(0, 8)).shape == (0, 4)


def test_no_kernels_are_kept_for_the_backward_pass():
    """Attentions, features and cells, of which a kernel for each sample is made anew."""
    layer, x = KWConv2d(16, 16, 3, padding=1), torch.randn(8, 16, 4, 4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        layer(x)
    assert kept and max(kept) < 8 * layer.cells.numel()


BAD = [('in_channels', (0, 8., True)), ('out_channels', (0, None)), ('groups', (0, 4)), ('kernel_size', (0, '3')),
       ('stride', (0, )), ('padding', (-1, 'full')), ('padding_mode', ('constant', )), ('warehouse', ('', 1, True)),
       *((name, (0, -1, True, None, '1', math.inf)) for name in ('cell_num_ratio', 'cell_in_ratio', 'cell_out_ratio')),
       ('nonlocal_basis_ratio', (0, 2, True)), ('reduction', (0, 2.)), ('min_channels', (0, 1.5)),
       ('temperature', (-.1, 1.1, True, math.nan)), ('norm_cfg', ('BN', dict(type='IN')))]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in BAD for value in values])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        KWConv2d(**{**dict(in_channels=6, out_channels=4, kernel_size=3), name: value})


@pytest.mark.parametrize(('name', 'value'), [('in_features', 0), ('out_features', 2.5), ('reduction', 0)])
def test_bad_arguments_of_the_linear_layer(name, value):
    with pytest.raises(ValueError, match=rf'\b{name}\b'):
        KWLinear(**{**dict(in_features=6, out_features=4), name: value})

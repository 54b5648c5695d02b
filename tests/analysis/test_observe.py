"""Methods are seen, also those that no forward hook sees, and are put back."""
import pytest
import torch
from torch import nn

from dynconv_mm import ODConv2d
from dynconv_mm.analysis.observe import find_layers, observe
from dynconv_mm.layers.conv_norm import conv_norm


def test_seen_and_put_back():
    layers = {'one': ODConv2d(2, 3, 3).eval(), 'two': ODConv2d(2, 3, 3).eval()}
    before = {name: dict(vars(layer)) for name, layer in layers.items()}
    seen, x = [], torch.randn(2, 2, 5, 5)
    expected = layers['two'](x)
    with observe(layers, 'compute_attentions', lambda *call: seen.append(call)):
        assert torch.equal(layers['two'](x), expected)
    (name, args, attentions), = seen
    assert name == 'two' and torch.equal(args[0], x)
    assert attentions['spatial'].shape == (2, 9)
    assert {name: dict(vars(layer)) for name, layer in layers.items()} == before


def test_layers_execute_as_they_do_unseen():
    """Norms are folded, which they are not while a forward hook looks."""
    layer, norm = ODConv2d(2, 3, 3).eval(), nn.BatchNorm2d(3).eval()
    scaled = []
    layer.forward_norm = lambda *args: scaled.append(args) or ODConv2d.forward_norm(layer, *args)
    seen = []
    with torch.no_grad(), observe({'': layer}, 'compute_attentions', lambda *call: seen.append(call)):
        conv_norm(layer, norm, torch.randn(1, 2, 5, 5))
    assert len(scaled) == len(seen) == 1


def test_put_back_after_a_failure_and_when_nested():
    layer, outer, inner = ODConv2d(2, 3, 3).eval(), [], []
    with pytest.raises(RuntimeError), observe({'': layer}, 'compute_attentions', lambda *call: outer.append(call)):
        with observe({'': layer}, 'compute_attentions', lambda *call: inner.append(call)):
            layer(torch.randn(1, 2, 5, 5))
        layer(torch.randn(1, 2, 5, 5))
        raise RuntimeError
    assert (len(outer), len(inner)) == (2, 1)
    assert 'compute_attentions' not in vars(layer)


def test_find_layers():
    model = nn.Sequential(nn.ReLU(), nn.Sequential(ODConv2d(2, 3, 1)))
    assert find_layers(model, ODConv2d) == {'1.0': model[1][0]}

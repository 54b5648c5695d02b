"""FDConv's detectors and layers go from the release's names to this package's and back."""
from __future__ import annotations

import pytest
import torch
from golden import Golden
from torch import Tensor, nn

from dynconv_mm.conversion import CheckpointError, dynamicize, from_released, to_released
from dynconv_mm.conversion.fdconv_names import package_names, released_names
from dynconv_mm.layers import FDConv2d
from dynconv_mm.models import FDConvResNet


def released_order(rows: int, columns: int) -> Tensor:
    """The sort that the authors describe: of float32 distances, not stable."""
    row, column = torch.fft.fftfreq(rows), torch.fft.rfftfreq(columns)
    distances = torch.stack(torch.meshgrid(row, column, indexing='ij'), -1).norm(dim=-1)
    return distances.flatten().sort()[1]


@pytest.mark.parametrize('name', ['fdconv_0', 'fdconv_1', 'fdconv_2'])
def test_layers(name):
    weights = Golden(name).state_dict
    ours = package_names(weights)
    back, moved = released_names(ours)
    assert moved == 0 and back.keys() == weights.keys()
    assert all(torch.equal(back[key], value) for key, value in weights.items())
    groups = ours['coefficient_groups']
    rows, columns = groups.shape[0], len(weights['KSM_Local.norm.weight']) * (3 if name != 'fdconv_1' else 1)
    order, n = released_order(rows, columns), len(weights['KSM_Global.kernel_fc.bias'])
    assert torch.equal(groups.flatten()[order].long(), torch.arange(len(order)) * n // len(order))


def test_backbones():
    torch.manual_seed(0)
    network = FDConvResNet(50, stem_channels=8, base_channels=32)  # two of whose stages the release would have so
    state_dict = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    released, moved = released_names(state_dict)
    assert moved > 0  # our order is another one where distances are equal
    assert not any('attention' in name or 'coefficient_groups' in name or 'band_conv' in name for name in released)
    assert released['backbone.layer2.0.conv2.dft_weight'].dim() == 4
    ours = package_names(released)
    assert ours.keys() == state_dict.keys()
    differing = [name for name, value in state_dict.items() if not torch.equal(ours[name], value)]
    assert differing and all(name.endswith('.coefficient_groups') for name in differing)
    back, moved = released_names(ours)
    assert moved == 0 and all(torch.equal(back[name], value) for name, value in released.items())


def test_a_checkpoint_and_back():
    with torch.device('meta'):
        weights = FDConvResNet(depth=50, kernel_num=16).state_dict()
    released = {name: value for name, value in released_names(
        {name: value for name, value in weights.items() if not name.endswith('coefficient_groups')})[0].items()}
    official = dict(meta=dict(epoch=12), state_dict={f'backbone.{name}': value for name, value in released.items()},
                    optimizer=dict(state={}))
    converted, architecture, remarks = from_released(official, backbone_only=True)
    assert architecture.name == 'fdconv-resnet50' and architecture.extra == dict(kernel_num=16)
    assert remarks == ('optimizer was left out', )
    ours = {name.removeprefix('backbone.'): value for name, value in converted['state_dict'].items()}
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in weights.items()}
    back = to_released(converted, backbone_only=True)
    assert back.remarks == () and back.checkpoint['state_dict'].keys() == official['state_dict'].keys()


def test_our_order_is_told_of():
    """A network that was trained here is another one, if only at the borders of groups, in the original code."""
    network = FDConvResNet(depth=50)
    state_dict = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    remarks = to_released(dict(state_dict=state_dict), backbone_only=True).remarks
    assert len(remarks) == 1 and 'coefficients at the border between two groups' in remarks[0]


def test_incomplete_weights():
    with pytest.raises(CheckpointError, match=r'have conv\.dft_weight without conv\.attention\.filter_fc\.bias'):
        package_names({'conv.dft_weight': torch.zeros(1, 51, 27, 2)})


def test_dynamicize_keeps_what_is_unsuited():
    model = nn.Sequential(nn.Conv2d(3, 18, 3), nn.Conv2d(18, 20, 3), nn.Conv2d(20, 20, 3, groups=2),
                          nn.Conv2d(20, 20, 5), nn.Conv2d(20, 8, 1)).double().eval()
    x = torch.randn(2, 3, 16, 15).double()
    expected = model(x)
    report = dynamicize(model, dict(type='FDConv2d', kernel_num=3))
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    assert [row.names for row in report.replaced] == [('1', )] and isinstance(model[1], FDConv2d)
    reasons = {'0': 'sees the image', '2': 'groups must be 1', '3': r'20 to 20 channels and \(5, 5\) is an ordinary',
               '4': r'20 to 8 channels and \(1, 1\) is an ordinary convolution'}
    for name, reason in reasons.items():
        assert reason.replace('\\', '') in report.kept[name]


def test_dynamicized_models_take_static_checkpoints():
    static = nn.Sequential(nn.Conv2d(18, 20, 3)).double()
    model = nn.Sequential(nn.Conv2d(18, 20, 3)).double()
    dynamicize(model, dict(type='FDConv2d', kernel_num=3))
    model.load_state_dict(static.state_dict())
    x = torch.randn(2, 18, 9, 7).double()
    torch.testing.assert_close(model(x), static(x), rtol=0, atol=1e-12)

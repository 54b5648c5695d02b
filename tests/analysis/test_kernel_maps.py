"""Maps are sums of the kernels' elements, with axes as documented."""
import pytest
import torch
from model_state import model_state
from torch import nn

from dynconv_mm import DCDC2d, Involution2d
from dynconv_mm.analysis.kernel_maps import KernelMaps


@pytest.fixture
def collected():
    torch.manual_seed(0)
    model = nn.Sequential(Involution2d(6, 6, 3, group_channels=2), DCDC2d(6, 6, gsi_kernel_size=3, group_channels=3),
                          DCDC2d(6, 6, gsi='conv_small', stride=2, group_channels=6)).eval()
    images = torch.randn(5, 6, 8, 7)
    maps = KernelMaps(model)
    assert maps
    with maps.collect(), torch.no_grad():
        for batch in images.split(3):
            model(batch)
    return model, images, maps


@torch.no_grad()
def test_over_positions(collected):
    model, images, maps = collected
    assert {name: tuple(found.shape) for name, found in maps.position_maps.items()} == {
        '0': (2, 3, 8, 7), '1.lsa': (2, 2, 8, 7), '2.lsa': (2, 1, 4, 4)}
    kernels = model[0].compute_kernels(images)
    sums = torch.stack([kernels[:, :, row, column] for row in range(3) for column in range(3)]).sum(0)
    torch.testing.assert_close(maps.position_maps['0'], sums[3:])  # of the last batch
    deviation = sums.double().flatten(2).std(2, correction=0).mean(0)
    torch.testing.assert_close(maps.variation['0'].mean, deviation, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_of_the_image(collected):
    model, images, maps = collected
    assert list(maps.image_maps) == ['1.gsi']  # a static convolution predicts none
    gsi = model[1].gsi
    kernel = gsi.compute_kernel(gsi.conv1(model[0](images)))
    assert kernel.shape[1:] == (2, 2, 3, 3)
    sums = torch.stack([kernel[..., row, column] for row in range(3) for column in range(3)]).sum(0)
    torch.testing.assert_close(maps.image_maps['1.gsi'], sums[3:])
    torch.testing.assert_close(maps.variation['1.gsi'].variance, sums.double().var(0, correction=0), rtol=1e-4,
                               atol=1e-9)


def test_json(collected):
    numbers = collected[2].to_json()
    assert {name: values['varies_over'] for name, values in numbers.items()} == {
        '0': 'positions', '1.lsa': 'positions', '1.gsi': 'images', '2.lsa': 'positions'}
    assert all(values['std'] > 0 for values in numbers.values())
    assert len(numbers['0']['std_by_group']) == 3


def test_nothing_to_collect():
    assert not KernelMaps(nn.Conv2d(2, 3, 1))


def test_the_model_stays_as_it_is(collected):
    model, images, maps = collected
    before = model_state(model)
    attributes = [vars(module).keys() for module in model.modules()]
    with maps.collect():
        assert [vars(module).keys() for module in model.modules()] == attributes
        model(images)
    assert model_state(model) == before

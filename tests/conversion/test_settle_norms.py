"""Networks whose norms are settled put out what depends on the image, and stay as they are otherwise."""
import pytest
import torch
from torch import nn

from dynconv_mm import DCDCResNet, ODConvMobileNetV2, RedNet
from dynconv_mm.conversion.settle_norms import calm_attentions, random_images, settle_norms


def test_images_differ_and_can_be_had_again():
    images = random_images(32, 3, 16, 20)
    assert images.shape == (32, 3, 16, 20) and torch.equal(images, random_images(32, 3, 16, 20))
    assert not torch.equal(images, random_images(32, 3, 16, 20, seed=1))
    assert images.mean((2, 3)).std() > .5 and images.std((2, 3)).std() > .1


def test_a_norm_has_the_statistics_of_the_batch():
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), random_images(4, 3, 6, 7)
    assert settle_norms(network, images) == 1
    y = network(images)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    assert network[1].momentum == .1 and not network[1].training


def test_attentions_are_calm():
    """A fresh network depends on the image afterwards, in float32 as in float64."""
    torch.manual_seed(0)
    network = ODConvMobileNetV2(widen_factor=.25, kernel_num=4)
    network.init_weights()
    network.eval()
    images = random_images(2, 3, 64, 64, seed=1)
    with torch.no_grad():
        assert network(images)[0].abs().max() < 1e-10
        calm_attentions(network)
        assert settle_norms(network, random_images(8, 3, 64, 64)) == 103
        seen = []
        network.layer4[0].conv[0].conv.register_attention_hook(lambda layer, attentions: seen.append(attentions))
        first, second = y = network(images)[0]
        assert (first - second).abs().max() > .1 * first.abs().max()
        torch.testing.assert_close(y.double(), network.double()(images.double())[0], rtol=0, atol=1e-4 * y.max().item())
    for name, neutral in dict(kernel=1 / 4, channel=1 / 2, filter=1 / 2).items():
        one, other = seen[0][name]
        assert not one.equal(other) and (one - neutral).abs().max() < .1


@pytest.mark.parametrize('backbone', [RedNet, DCDCResNet])
def test_kernels_of_positions_are_calm(backbone):
    """Fresh deep ones square their input block by block; afterwards an unusual image leaves the maps finite."""
    torch.manual_seed(0)
    network = backbone(101).eval()
    calm_attentions(network)
    settle_norms(network, random_images(8, 3, 64, 64))
    with torch.no_grad():
        for seed in range(4):
            first, second = network(random_images(2, 3, 96, 96, seed=seed))[0]
            assert first.isfinite().all() and second.isfinite().all()
            assert 0 < first.abs().max() < 1e4 and not first.allclose(second)

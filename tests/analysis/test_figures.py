"""Figures hold what they are given: a row a layer, a panel an attention, a picture an image."""
import io

import numpy as np
import pytest
import torch
from PIL import Image

from dynconv_mm.analysis import figures
from dynconv_mm.analysis.running_statistics import RunningStatistics


def attentions(**sizes) -> dict[str, RunningStatistics]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for kind, size in sizes.items():
        made[kind] = RunningStatistics(bins=100)
        made[kind].update(torch.rand(6, size, generator=generator))
    return made


LAYERS = {'backbone.layer1.conv1': attentions(spatial=9, channel=5, filter=7, kernel=4),
          'backbone.layer1.conv2': attentions(channel=7, filter=3, kernel=4),
          'backbone.layer2.conv1': attentions(spatial=25, channel=3)}


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


@pytest.mark.parametrize('draw', [figures.attention_means_figure, figures.attention_histogram_figure])
def test_attentions(draw):
    figure = draw(LAYERS)
    assert labels(figure.axes[0]) == ['layer1.conv1', 'layer1.conv2', 'layer2.conv1']
    assert titles(figure) == list(figures.TITLES.values())
    assert figure.axes[0].get_ylim() == (2.5, -0.5)  # the first layer on top
    only_kernel = draw({name: {'kernel': kinds['kernel']} for name, kinds in LAYERS.items() if 'kernel' in kinds})
    assert titles(only_kernel) == [figures.TITLES['kernel']]
    figures.to_png(figure)


def test_means_are_those_of_the_elements():
    axis = figures.attention_means_figure(LAYERS).axes[0]
    table = np.ma.filled(axis.images[0].get_array(), np.nan)
    assert table.shape == (3, 25)
    np.testing.assert_allclose(table[0, :9], LAYERS['backbone.layer1.conv1']['spatial'].mean)
    np.testing.assert_allclose(table[2], LAYERS['backbone.layer2.conv1']['spatial'].mean)
    assert np.isnan(table[0, 9:]).all() and np.isnan(table[1]).all()


def test_histograms_are_parts():
    axis = figures.attention_histogram_figure(LAYERS).axes[0]
    table = np.ma.filled(axis.images[0].get_array(), np.nan)
    assert table.shape == (3, 50)
    np.testing.assert_allclose(table[[0, 2]].sum(1), 1)
    counts = LAYERS['backbone.layer2.conv1']['spatial'].histogram.numpy().reshape(50, 2).sum(1)
    np.testing.assert_allclose(table[2], counts / 150)


@pytest.mark.parametrize('values, scale', [((1., 2.), 'linear'), ((1e-3, 5.), 'log'), ((0., float('nan')), 'linear')],
                         ids=str)
def test_phi(values, scale):
    figure = figures.phi_figure({f'layer{index}': dict(normalized=value) for index, value in enumerate(values)})
    assert figure.axes[0].get_xscale() == scale
    assert labels(figure.axes[0]) == ['layer0', 'layer1']
    figures.to_png(figure)


def test_kernel_maps_of_images_of_several_sizes():
    images = [np.zeros((8, 9, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)]
    quiet = torch.zeros(3, 8, 9)
    quiet[1] = torch.arange(72.).view(8, 9)
    maps = {'layer1.lsa': [quiet, torch.rand(3, 6, 4) / 100]}
    figure = figures.kernel_maps_figure(images, maps, {'layer2.gsi': [torch.eye(4), -2 * torch.eye(4)]})
    assert titles(figure) == ['image', 'layer1.lsa\ngroup 2 of 3', 'layer2.gsi\n4 channels → 4']
    shown = [axis.images[0] for axis in figure.axes if axis.images]
    assert [image.get_array().shape for image in shown] == [(8, 9, 3), (8, 9), (4, 4), (6, 4, 3), (6, 4), (4, 4)]
    assert shown[2].get_clim() == shown[5].get_clim() == (-2, 2)  # one scale for all images
    figures.to_png(figure)


def test_cams():
    images = [np.zeros((8, 8, 3), np.uint8)] * 3
    cams = [(np.ones((8, 8)), f'seven, {index}') for index in range(3)]
    figure = figures.cam_figure(images, dict(static=cams, dynamic=cams))
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ['image', 'static', 'dynamic']
    assert [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()] == [caption for _, caption in cams] * 2
    with Image.open(io.BytesIO(figures.to_png(figure))) as image:
        assert image.format == 'PNG'


def test_cams_of_annotated_images():
    """What is predicted wrongly is red; of an image without annotation nothing is known."""
    cams = [(np.ones((8, 8)), caption) for caption in ('seven, 0.9', 'seventeen, 0.8', 'six, 1.00')]
    figure = figures.cam_figure([np.zeros((8, 8, 3), np.uint8)] * 3, {'a network of a long name' * 3: cams},
                                ['seven', 'seven', None])
    labels = [axis.xaxis.label for axis in figure.axes[:6]]
    assert [label.get_text() for label in labels] == ['seven', 'seven', '', *(caption for _, caption in cams)]
    assert [label.get_color() for label in labels[3:]] == ['black', 'tab:red', 'black']
    assert figure.axes[3].yaxis.label.get_size() < 3


def test_picture_row():
    """Pixel by pixel, each below its title."""
    rng = np.random.default_rng(0)
    pictures = {name: rng.integers(0, 256, (40, 50, 3), np.uint8) for name in ('annotated', 'a' * 60, 'c')}
    figure = figures.picture_row_figure(pictures)
    assert [axis.get_title() for axis in figure.axes] == list(pictures)
    with Image.open(io.BytesIO(figures.to_png(figure))) as image:
        drawn = np.asarray(image.convert('RGB'))
    assert drawn.shape == (64, 162, 3)
    for column, picture in enumerate(pictures.values()):
        assert np.array_equal(drawn[24:, 56 * column:56 * column + 50], picture)


def test_short_names():
    assert figures.short_names(['backbone.layer1.conv1', 'backbone.layer1.conv2']) == ['conv1', 'conv2']
    assert figures.short_names(['a.b', 'a.b.c']) == ['b', 'b.c']
    assert figures.short_names(['a.b']) == ['a.b']
    assert figures.short_names(['a', 'b.c']) == ['a', 'b.c']

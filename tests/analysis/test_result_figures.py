"""Curves and trade-offs hold what they are given."""
import pytest
from matplotlib.colors import to_hex

from dynconv_mm.analysis.figures import to_png
from dynconv_mm.analysis.result_figures import (
    Point,
    curves_figure,
    differences,
    in_percent,
    metric_label,
    trade_off_figure,
)
from dynconv_mm.analysis.training_log import Band

ALONE = Band([1, 2], [10., 20.], [10., 20.], [10., 20.])
SEEDS = Band([1, 2, 3], [12., 22., 31.], [11., 20., 30.], [13., 25., 33.])


def test_curves():
    figure = curves_figure({'DyConv': dict(validation=ALONE), 'ODConv': dict(validation=SEEDS, training=ALONE)},
                           'epoch', 'top-1 accuracy (%)')
    axis, = figure.axes
    lines = axis.get_lines()
    assert [list(line.get_ydata()) for line in lines] == [ALONE.mean, SEEDS.mean, ALONE.mean]
    assert [line.get_linestyle() for line in lines] == ['-', '-', '--']
    colours = [to_hex(line.get_color()) for line in lines]
    assert colours[0] != colours[1] == colours[2]  # one for each network
    drawn, = axis.collections  # one seed has no band
    ys = {y for x, y in drawn.get_paths()[0].vertices.tolist()}
    assert ys == {*SEEDS.low, *SEEDS.high}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ['DyConv', 'ODConv', 'validation', 'training']
    assert (axis.get_xlabel(), axis.get_ylabel()) == ('epoch', 'top-1 accuracy (%)')
    to_png(figure)


def test_a_single_epoch_is_seen():
    axis, = curves_figure({'a': dict(validation=Band([4], [9.], [9.], [9.]))}, 'epoch', 'top-1').axes
    assert axis.get_lines()[0].get_marker() == 'o'


@pytest.mark.parametrize('kind', ['validation', 'training'])
def test_a_single_curve(kind):
    """It is solid, with its name above and no legend that takes room."""
    axis, = curves_figure({'a': {kind: ALONE}}, 'epoch', 'loss').axes
    assert axis.get_lines()[0].get_linestyle() == '-'
    assert axis.get_title() == 'a' and axis.get_legend() is None
    axis, = curves_figure({'a': {kind: ALONE}, 'b': {kind: ALONE}}, 'epoch', 'loss').axes
    assert {line.get_linestyle() for line in axis.get_lines()} == {'-'}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ['a', 'b']


def test_trade_off():
    figure = trade_off_figure({'ResNet': [Point('r50_x', 25_000_000, 4_000_000_000, 76.),
                                          Point('r18_x', 11_000_000, 1_800_000_000, 70.)],
                               'ODConv': [Point('o18', 12_000_000, 1_900_000_000, 73.)]}, 'top-1 accuracy (%)')
    for axis, costs, label in zip(figure.axes, ([11., 25.], [1.8, 4.]), ('parameters (M)', 'multiply-adds (G)')):
        assert axis.get_xlabel() == label
        assert list(axis.get_lines()[0].get_xdata()) == costs  # joined in their order
        assert list(axis.get_lines()[0].get_ydata()) == [70., 76.]
        assert [text.get_text() for text in axis.texts] == ['18', '50', '']
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ['ResNet', 'ODConv']
    small = trade_off_figure({'a': [Point('a', 10**6, 99_000_000, 1.)]}, 'AP')
    assert small.axes[1].get_xlabel() == 'multiply-adds (M)' and list(small.axes[1].get_lines()[0].get_xdata()) == [99.]
    to_png(small)


def test_intervals():
    figure = trade_off_figure({'a': [Point('a', 10**6, 10**8, 2., (1., 4.)), Point('b', 10**6, 10**8, 3.)]}, 'AP')
    for axis, cost in zip(figure.axes, (1., 100.)):
        drawn, = axis.collections  # b has none
        segment, = drawn.get_segments()
        assert segment.tolist() == [[cost, 1.], [cost, 4.]]


@pytest.mark.parametrize('names, short', [
    (['resnet18_in1k', 'resnet101_in1k'], ['18', '101']), (['w050', 'w075', 'w100'], ['050', '075', '100']),
    (['a-r50-x', 'a-r50-neck-x'], ['', 'neck']), (['one'], ['']), (['same', 'same'], ['', '']),
])
def test_differences(names, short):
    assert differences(names) == short


@pytest.mark.parametrize('metric, label, error', [
    ('accuracy/top1', 'top-1 accuracy (%)', 'top-1 error (%)'),
    ('Top 5 Accuracy (ODConv paper)', 'top-5 accuracy (%)', 'top-5 error (%)'),
    ('coco/bbox_mAP', 'bbox_mAP', 'bbox_mAP error'), ('coco_panoptic/PQ', 'coco_panoptic/PQ (%)', None),
])
def test_labels(metric, label, error):
    assert metric_label(metric) == label
    if error is not None:
        assert metric_label(metric, error=True) == error
    assert in_percent(metric) == ('%' in label)

"""Pictures have the size that was asked for, all marks, and labels that stay within them."""
import io

import numpy as np
import pytest
from PIL import Image

from dynconv_mm.analysis.detection_figures import GUTTER, TITLE, Mark, confusion_figure, marked_pictures_figure
from dynconv_mm.analysis.figures import to_png

MASK = np.zeros((40, 60), bool)
MASK[10:20, 30:50] = True
MARKS = [Mark((2, 1, 20, 20), 'one 0.98', '#2f855a'), Mark((2, 1, 20, 21), 'seven 0.64', '#c53030'),
         Mark((30, 10, 50, 20), 'missed: two', '#b83280', dashed=True, mask=MASK),
         Mark((50, 0, 60, 5), 'three', '#c53030')]


def test_pictures():
    pytest.importorskip('matplotlib')
    figure = marked_pictures_figure(np.full((40, 60, 3), 255, np.uint8), {'annotated': [], 'found': MARKS}, 300)
    png = Image.open(io.BytesIO(to_png(figure)))
    assert png.size == (2 * 300 + GUTTER, 200 + TITLE)
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ('annotated', 'found')
    assert not left.patches and [patch.get_linestyle() for patch in right.patches] == ['-', '-', '--', '-']
    assert [text.get_text() for text in right.texts] == [mark.text for mark in MARKS]
    pixels = np.asarray(png.convert('RGB')).astype(int)
    gutter = pixels[TITLE:, 300:300 + GUTTER]
    assert (gutter == 255).all()
    masked = pixels[TITLE + 75, 300 + GUTTER + 200]  # the middle of the mask: 45% of its colour on white
    assert np.abs(masked - (0.55 * 255 + 0.45 * np.array([0xb8, 0x32, 0x80]))).max() <= 3
    labels = [text.get_window_extent() for text in right.texts]
    assert not any(one.count_overlaps(labels[:number]) for number, one in enumerate(labels))
    for text in right.texts:
        box = text.get_window_extent()
        inside = right.get_window_extent()
        assert inside.x0 - 2 <= box.x0 and box.x1 <= inside.x1 + 2
        assert inside.y0 - 2 <= box.y0 and box.y1 <= inside.y1 + 2


@pytest.mark.parametrize('classes', [2, 40])
def test_confusion(classes):
    pytest.importorskip('matplotlib')
    counts = np.zeros((classes + 1, classes + 1), int)
    counts[0, 0], counts[0, classes], counts[classes, 1] = 6, 2, 3
    axis, = confusion_figure(counts, [f'class {number}' for number in range(classes)]).axes
    assert [text.get_text() for text in axis.texts] == (['6', '2', '3'] if classes == 2 else [])
    assert [label.get_text() for label in axis.get_xticklabels()][-1] == 'missed'
    assert axis.images[0].get_array()[0, 0] == 6 / 8

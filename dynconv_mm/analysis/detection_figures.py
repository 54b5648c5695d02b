"""Figures of what detectors found: pictures with boxes, and which classes are taken for which."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .figures import DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

GUTTER, TITLE = 24, 26  # pixels between pictures, and above them
LABEL = 9  # points
MOST_NUMBERS = 30  # classes up to which each cell has its number


class Mark(NamedTuple):
    """Something in a picture."""

    box: Sequence[float]  # left, top, right, bottom
    text: str
    colour: str
    dashed: bool = False
    mask: np.ndarray | None = None  # bool[height, width]


def marked_pictures_figure(image: np.ndarray, panels: Mapping[str, Sequence[Mark]], width: int) -> Figure:
    """An image several times side by side, with other marks in each.

    Args:
        image (np.ndarray): ``uint8[height, width, 3]``.
        panels (Mapping[str, Sequence[Mark]]): by title.
        width (int): of each panel, in pixels, at which the labels keep their size.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    rows, columns = image.shape[:2]
    height = round(width * rows / columns)
    size = len(panels) * (width + GUTTER) - GUTTER, height + TITLE
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI))
    for number, (title, marks) in enumerate(panels.items()):
        axis = figure.add_axes([number * (width + GUTTER) / size[0], 0, width / size[0], height / size[1]])
        axis.set_axis_off()
        axis.set_title(title, fontsize=11, pad=5)
        axis.imshow(image, extent=(0, columns, rows, 0), aspect='auto', interpolation='bicubic')
        for mark in marks:
            if mark.mask is not None:
                overlay = np.zeros((*mark.mask.shape, 4))
                overlay[mark.mask] = *to_rgb(mark.colour), 0.45
                axis.imshow(overlay, extent=(0, columns, rows, 0), aspect='auto', interpolation='nearest')
            left, top, right, bottom = map(float, mark.box)
            axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=mark.colour,
                                     linewidth=1.8, linestyle='--' if mark.dashed else '-'))
        axis.set_xlim(0, columns)
        axis.set_ylim(rows, 0)
        taken = []
        for mark in marks:  # above all boxes
            taken.append(_label(axis, mark, taken, rows / height))
    return figure


def _label(axis: Axes, mark: Mark, taken: Sequence[Bbox], pixel: float) -> Bbox:
    """Write the text of a mark at its box, where it is within the picture and hides the fewest others; returns its
    place."""
    left, top, right, bottom = map(float, mark.box)
    places = [(x, y, side, end) for y, end in ((top - 3 * pixel, 'bottom'), (top + 4 * pixel, 'top'),
                                               (bottom + 4 * pixel, 'top'), (bottom - 3 * pixel, 'bottom'))
              for x, side in ((left, 'left'), (right, 'right'))]
    text = axis.text(0, 0, mark.text, fontsize=LABEL, color='white', clip_on=True,
                     bbox=dict(facecolor=mark.colour, edgecolor='none', pad=1.2, alpha=0.9))
    picture = axis.get_window_extent()

    def put(place: tuple[float, float, str, str]) -> tuple[bool, int]:
        """Write it there; whether it leaves the picture, and how many others it hides."""
        text.update(dict(zip(('x', 'y', 'ha', 'va'), place)))
        own = text.get_window_extent().padded(2)
        leaves = own.x0 < picture.x0 or own.x1 > picture.x1 or own.y0 < picture.y0 or own.y1 > picture.y1
        return leaves, own.count_overlaps(taken)

    put(min(places, key=put))
    return text.get_window_extent().padded(2)


def confusion_figure(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Which classes are taken for which.

    Args:
        counts (np.ndarray): as of :func:`~dynconv_mm.analysis.detection_errors.confusion`.
        classes (Sequence[str]): their names.
    """
    from matplotlib.figure import Figure
    side = max(3.5, 0.36 * len(counts))
    figure = Figure(figsize=(side + 1.2, side + 0.9), layout='constrained')
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    size = 8 if len(counts) <= MOST_NUMBERS else 5
    if len(counts) <= MOST_NUMBERS:
        for row, column in zip(*counts.nonzero()):
            axis.text(column, row, counts[row, column], fontsize=7, ha='center', va='center',
                      color='white' if shares[row, column] > 0.5 else 'black')
    axis.set_xticks(range(len(counts)), [*classes, 'missed'], rotation=90, fontsize=size)
    axis.set_yticks(range(len(counts)), [*classes, 'no object'], fontsize=size)
    axis.set_xlabel('found as', fontsize=9)
    axis.set_ylabel('annotated', fontsize=9)
    return figure

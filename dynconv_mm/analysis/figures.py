"""Figures of what networks learned: attentions, predicted kernels, Φ and Grad-CAM."""
from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .running_statistics import RunningStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

TITLES = dict(spatial=r'$\alpha_s$, kernel elements', kernel=r'$\alpha_w$, kernels',
              channel=r'$\alpha_c$, input channels', filter=r'$\alpha_f$, filters')
MAPPED = ('spatial', 'kernel')  # few elements, each shown; of the others the distribution
COLOURS = 'viridis'
ROW = 0.19  # inches a layer
DPI = 100
DRAWN_BINS = 50  # of histograms, at most

Attentions = Mapping[str, Mapping[str, RunningStatistics]]


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format='png', dpi=DPI, facecolor='white', pil_kwargs=dict(optimize=True))
    return drawn.getvalue()


def short_names(names: Sequence[str]) -> list[str]:
    """Dotted names without the parts that all of them begin with."""
    parts = [name.split('.') for name in names]
    shared = 0
    while len(parts) > 1 and all(len(name) > shared + 1 and name[shared] == parts[0][shared] for name in parts):
        shared += 1
    return ['.'.join(name[shared:]) for name in parts]


def kinds_of(layers: Attentions) -> list[str]:
    """The attentions that any of the layers has, in the order of :data:`TITLES`."""
    return [kind for kind in TITLES if any(kind in attentions for attentions in layers.values())]


def attention_means_figure(layers: Attentions) -> Figure:
    """Mean attentions by layer, as ODConv's Fig. 6.

    Of α_s and α_w each element's mean over the images; of α_c and α_f how the means of the channels are distributed:
    from the 25th to the 75th percentile the box, to the extremes the line, the median across.
    """
    figure, axes = _layer_panels(list(layers), kinds_of(layers))
    for kind, axis in axes.items():
        means = [attentions[kind].mean.flatten().cpu().numpy() if kind in attentions else np.empty(0)
                 for attentions in layers.values()]
        if kind in MAPPED:
            table = np.full((len(means), max(map(len, means))), np.nan)
            for row, values in zip(table, means):
                row[:len(values)] = values
            image = axis.imshow(table, aspect='auto', cmap=COLOURS, interpolation='nearest')
            axis.set_xticks(range(table.shape[1]), range(1, table.shape[1] + 1), fontsize=7 if table.shape[1] < 17
                            else 4)
            axis.set_xlabel('element', fontsize=8)
            _colour_bar(figure, image, axis, 'mean over images')
        else:
            for row, values in enumerate(means):
                if len(values):
                    low, lower, median, upper, high = np.percentile(values, (0, 25, 50, 75, 100))
                    axis.hlines(row, low, high, color='#444444', linewidth=1)
                    axis.barh(row, upper - lower, left=lower, height=0.6, color='#cfe0f0', edgecolor='#444444',
                              zorder=2)
                    axis.vlines(median, row - 0.3, row + 0.3, color='tab:red', zorder=3)
            axis.set_xlabel('mean over images', fontsize=8)
            axis.grid(axis='x', alpha=0.4)
    return figure


def attention_histogram_figure(layers: Attentions) -> Figure:
    """How the values of all images and elements are distributed, by layer: histograms, mean ± standard deviation."""
    from matplotlib.colors import PowerNorm
    figure, axes = _layer_panels(list(layers), kinds_of(layers))
    for kind, axis in axes.items():
        bins = max(len(attentions[kind].histogram) for attentions in layers.values() if kind in attentions)
        merged = math.ceil(bins / DRAWN_BINS)
        table = np.full((len(layers), math.ceil(bins / merged)), np.nan)
        for row, attentions in enumerate(layers.values()):
            if kind in attentions:
                histogram = attentions[kind].histogram.double().numpy()
                table[row] = np.add.reduceat(histogram, range(0, bins, merged)) / histogram.sum()
                summary = attentions[kind].summary()
                axis.errorbar(summary['mean'], row, xerr=summary['std'], fmt='.', color='tab:red', markersize=4,
                              elinewidth=1, capsize=2)
        # the square root shows rare values beside frequent ones
        most = np.nanmax(table)
        image = axis.imshow(table, aspect='auto', cmap='Blues', interpolation='nearest', norm=PowerNorm(0.5, 0, most),
                            extent=(0, 1, len(layers) - 0.5, -0.5))
        axis.set_xlim(0, 1)
        axis.set_xlabel('attention', fontsize=8)
        bar = _colour_bar(figure, image, axis, f'part of the values, in each 1/{table.shape[1]}')
        ticks = most * np.array([0, 1 / 16, 1 / 4, 9 / 16, 1])
        bar.set_ticks(ticks, labels=[f'{tick:.2g}' for tick in ticks])
        bar.minorticks_off()
    return figure


def phi_figure(layers: Mapping[str, Mapping[str, float]]) -> Figure:
    """σ_Φ by layer, normalised by the variance of the layer's input, as DCD's Fig. 6."""
    figure, axes = _layer_panels(list(layers), ['phi'], width=7, bottom=0.6)
    axis = axes['phi']
    values = np.array([figures['normalized'] for figures in layers.values()])
    axis.barh(range(len(values)), values, color='tab:blue')
    if (values > 0).any() and np.nanmax(values) > 50 * np.nanmin(values[values > 0]):
        axis.set_xscale('log')
    axis.set_title(r'$\Phi(x)$', fontsize=10)
    axis.set_xlabel(r'$\sigma_\Phi$ / variance of the input', fontsize=8)
    axis.grid(axis='x', alpha=0.4)
    axis.set_axisbelow(True)
    return figure


def kernel_maps_figure(images: Sequence[np.ndarray], position_maps: Mapping[str, Sequence[Tensor]],
                       image_maps: Mapping[str, Sequence[Tensor]]) -> Figure:
    """Predicted kernels beside the images, as DCDC's Fig. 5.

    Args:
        images (Sequence[np.ndarray]): ``uint8[height, width, 3]`` each.
        position_maps (Mapping[str, Sequence[Tensor]]): by layer, for each image Tensor[groups, height, width]. Drawn
            is the group whose map varies most over positions, each map on a scale of its own.
        image_maps (Mapping[str, Sequence[Tensor]]): by layer, for each image Tensor[c, c], drawn on one scale.
    """
    names = [*position_maps, *image_maps]
    shown = dict(zip(names, short_names(names)))
    figure, axes = _picture_grid(len(images), 1 + len(names), top=0.6, bottom=0.75)
    axes[0][0].set_title('image', fontsize=8)
    for row, image in zip(axes, images):
        row[0].imshow(image)
    for column, name in enumerate(names, 1):
        over_positions = name in position_maps
        maps = [one.double().cpu().numpy() for one in (position_maps if over_positions else image_maps)[name]]
        if over_positions:
            group = int(np.mean([one.std((1, 2)) for one in maps], 0).argmax())
            note = f'group {group + 1} of {len(maps[0])}'
            maps = [one[group] for one in maps]
        else:
            note = f'{maps[0].shape[1]} channels → {maps[0].shape[0]}'
            limit = max(np.abs(one).max() for one in maps)
            limits = dict(vmin=-limit, vmax=limit)
        axes[0][column].set_title(f'{_wrapped(shown[name])}\n{note}', fontsize=7)
        for row, one in zip(axes, maps):
            if over_positions:  # not of the few extremes at the border, where kernels see padding
                limits = dict(zip(('vmin', 'vmax'), np.percentile(one, (2, 98))))
            drawn = row[column].imshow(one, cmap=COLOURS if over_positions else 'coolwarm', interpolation='nearest',
                                       **limits)
        bar = _small_bar(figure, drawn, [axes[-1][column]], distance=0.16)
        if over_positions:
            bar.set_ticks(drawn.get_clim(), labels=['low', 'high'])
        else:
            bar.set_ticks([-limit, limit], labels=[f'{-limit:.2g}', f'{limit:.2g}'])
        _align_ends(bar)
    return figure


def cam_figure(images: Sequence[np.ndarray], columns: Mapping[str, Sequence[tuple[np.ndarray, str]]],
               annotated: Sequence[str | None] = ()) -> Figure:
    """Images, and beside them what networks look at.

    Args:
        images (Sequence[np.ndarray]): ``uint8[height, width, 3]`` each.
        columns (Mapping[str, Sequence[tuple[np.ndarray, str]]]): by network, for each image the map,
            ``float[height, width]`` from 0 to 1, and its caption.
        annotated (Sequence[str | None]): the class of each image, where it is known; captions that do not begin with
            it are red. Default: unknown.
    """
    figure, axes = _picture_grid(1 + len(columns), len(images), left=0.3, bottom=0.4, gap=0.28, size=1.6)
    axes[0][0].set_ylabel('image', fontsize=8)
    annotated = list(annotated) or [None] * len(images)
    for axis, image, label in zip(axes[0], images, annotated):
        axis.imshow(image)
        axis.set_xlabel(label or '', fontsize=8, labelpad=2)
    for row, (name, cams) in zip(axes[1:], columns.items()):
        row[0].set_ylabel(name, fontsize=min(8, 200 / len(name)))  # no longer than the picture is high
        for axis, image, (cam, caption), label in zip(row, images, cams, annotated):
            extent = (0, cam.shape[1], cam.shape[0], 0)
            axis.imshow(image.mean(2), cmap='gray', vmin=0, vmax=255, extent=extent)
            drawn = axis.imshow(cam, cmap='jet', alpha=0.5, vmin=0, vmax=1, extent=extent)
            wrong = label is not None and not caption.startswith(f'{label}, ')
            axis.set_xlabel(caption, fontsize=8, labelpad=2, color='tab:red' if wrong else 'black')
    bar = _small_bar(figure, drawn, axes[-1], distance=0.36)
    bar.set_ticks([0, 1], labels=['no weight', 'most weight'])
    _align_ends(bar)
    return figure


def picture_row_figure(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Pictures of one size side by side, each below its title and pixel by pixel.

    Args:
        pictures (Mapping[str, np.ndarray]): by title, ``uint8[height, width, 3]`` each.
    """
    from matplotlib.figure import Figure
    height, width = next(iter(pictures.values())).shape[:2]
    gap, top = 6, 24  # pixels
    size = len(pictures) * (width + gap) - gap, height + top
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI))
    for column, (title, picture) in enumerate(pictures.items()):
        axis = figure.add_axes([column * (width + gap) / size[0], 0, width / size[0], height / size[1]])
        axis.imshow(picture, interpolation='nearest', aspect='auto')
        axis.set_axis_off()
        axis.set_title(title, fontsize=min(9, 100 * width / DPI / len(title)), pad=4)
    return figure


def _layer_panels(names: Sequence[str], kinds: Sequence[str], width: float = 3.2,
                  bottom: float = 1.) -> tuple[Figure, dict[str, Axes]]:
    """Panels side by side with a row for each layer, the first on top; lengths in inches."""
    from matplotlib.figure import Figure
    labels = short_names(names)
    margin = 0.35 + 0.075 * max(map(len, labels))
    size = (margin + width * len(kinds) + 0.2, bottom + 0.4 + ROW * len(names))
    figure = Figure(figsize=size)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(left=margin / size[0], right=1 - 0.2 / size[0], top=1 - 0.4 / size[1],
                           bottom=bottom / size[1], wspace=0.12)
    for axis, kind in zip(panels, kinds):
        axis.set_title(TITLES.get(kind, ''), fontsize=10)
        axis.tick_params(labelsize=8)
    panels[0].set_yticks(range(len(names)), labels, fontsize=8)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure, dict(zip(kinds, panels))


def _colour_bar(figure: Figure, image: AxesImage, axis: Axes, label: str) -> Colorbar:
    """A bar below a panel, at the same distance whatever the height of the figure."""
    height, box = figure.get_size_inches()[1], axis.get_position()
    bar = figure.colorbar(image, cax=figure.add_axes([box.x0, 0.42 / height, box.width, 0.1 / height]),
                          orientation='horizontal')
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return bar


def _small_bar(figure: Figure, image: AxesImage, above: Sequence[Axes], distance: float) -> Colorbar:
    """A bar ``distance`` inches below neighbouring panels."""
    height = figure.get_size_inches()[1]
    first, last = above[0].get_position(), above[-1].get_position()
    bar = figure.colorbar(image, cax=figure.add_axes([first.x0, first.y0 - distance / height, last.x1 - first.x0,
                                                      0.07 / height]), orientation='horizontal')
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=7, length=2)
    return bar


def _align_ends(bar: Colorbar) -> None:
    """The labels of a bar's two ends begin and end with it."""
    for label, side in zip(bar.ax.get_xticklabels(), ('left', 'right')):
        label.set_horizontalalignment(side)


def _picture_grid(rows: int, columns: int, top: float = 0.06, bottom: float = 0.06, left: float = 0.06,
                  gap: float = 0.06, size: float = 1.3) -> tuple[Figure, list[list[Axes]]]:
    """Squares without ticks; lengths in inches."""
    from matplotlib.figure import Figure
    width, height = columns * (size + 0.12) + left, rows * (size + gap) + top + bottom
    figure = Figure(figsize=(width, height))
    axes = [[figure.add_axes([(left + column * (size + 0.12)) / width,
                              1 - (top + (row + 1) * size + row * gap) / height, size / width, size / height])
             for column in range(columns)] for row in range(rows)]
    for axis in (axis for row in axes for axis in row):
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, axes


def _wrapped(name: str, width: int = 18) -> str:
    """A dotted name on two lines where it is too long for one."""
    if len(name) <= width:
        return name
    parts = name.split('.')
    half = math.ceil(len(parts) / 2)
    return '.'.join(parts[:half]) + '.\n' + '.'.join(parts[half:])

"""Figures of results: curves of trainings, and accuracy over what networks cost."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .training_log import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = 'osD^vP*X'
CORNERS = ((-1, 1), (1, -1), (-1, -1), (1, 1))  # of points, where labels stand: each method's at another one
PERCENT = ('accuracy', 'Accuracy', 'PQ', 'SQ', 'RQ')  # metrics that are in percent


class Point(NamedTuple):
    """A network and what it reaches."""

    name: str
    params: int
    madds: int  # for one image
    value: float
    interval: tuple[float, float] | None = None  # in which the value lies


def in_percent(metric: str) -> bool:
    """Whether a metric is in percent, by its name: mmdet's AP is not."""
    return any(part in metric for part in PERCENT)


def metric_label(metric: str, error: bool = False) -> str:
    """A metric with its unit, for an axis; ``error``: 100% less the metric."""
    name = re.sub(r'^accuracy/top|^Top (\d) Accuracy.*', r'top-\1', metric).replace('coco/', '')
    what = ('error' if error else 'accuracy') if name.startswith('top-') else 'error' * error
    return ' '.join([name, *[what] * bool(what), *['(%)'] * in_percent(metric)])


def curves_figure(curves: Mapping[str, Mapping[str, Band]], x_label: str, y_label: str) -> Figure:
    """Metrics of networks during their training, as ODConv's Fig. 4 and DCD's Fig. 5.

    Args:
        curves (Mapping[str, Mapping[str, Band]]): by network, its 'validation', its 'training' or both; the latter is
            dashed where both are drawn. Of several seeds the mean is drawn, in a band from the lowest to the highest.
        x_label (str): 'epoch' or 'iteration'.
        y_label (str): the metric.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator
    figure, axis = _panel()
    drawn = list(dict.fromkeys(kind for kinds in curves.values() for kind in kinds))
    styles = {kind: '--' if kind == 'training' and len(drawn) > 1 else '-' for kind in drawn}
    for number, (name, kinds) in enumerate(curves.items()):
        for kind, curve in kinds.items():
            marker = MARKERS[number % len(MARKERS)] if len(curve.places) == 1 else None  # a line needs two
            axis.plot(curve.places, curve.mean, color=f'C{number % 10}', linestyle=styles[kind], linewidth=1.4,
                      marker=marker, markersize=4, label=name if kind == next(iter(kinds)) else None)
            if curve.low != curve.high:
                axis.fill_between(curve.places, curve.low, curve.high, color=f'C{number % 10}', alpha=0.2, linewidth=0)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    places = {place for kinds in curves.values() for curve in kinds.values() for place in curve.places}
    if len(places) == 1:
        axis.set_xticks(list(places))
    handles = axis.get_legend_handles_labels()[0]
    if len(drawn) > 1:
        handles += [Line2D([], [], color='#444444', linestyle=style, linewidth=1.4, label=kind)
                    for kind, style in styles.items()]
    if len(handles) == 1:
        axis.set_title(handles[0].get_label(), fontsize=8)
    else:  # beside the curves, which may be anywhere
        axis.legend(handles=handles, fontsize=8, loc='upper left', bbox_to_anchor=(1.01, 1), borderaxespad=0,
                    frameon=False)
    return figure


def trade_off_figure(groups: Mapping[str, Sequence[Point]], y_label: str) -> Figure:
    """What networks reach over their parameters and their multiply-adds, as ODConv's Fig. 3 and DCDC's Fig. 4.

    Args:
        groups (Mapping[str, Sequence[Point]]): networks by method, which a line joins in the order of their costs;
            their intervals are upright lines.
        y_label (str): the metric.
    """
    figure, axes = _panel(2)
    madds = [point.madds for points in groups.values() for point in points]
    giga = max(madds) >= 1e9
    for axis, attribute, scale, label in (
            (axes[0], 'params', 1e6, 'parameters (M)'),
            (axes[1], 'madds', 1e9 if giga else 1e6, f'multiply-adds ({"G" if giga else "M"})')):
        for number, (name, points) in enumerate(groups.items()):
            right, up = CORNERS[number % len(CORNERS)]
            points = sorted(points, key=lambda point: getattr(point, attribute))
            costs = [getattr(point, attribute) / scale for point in points]
            axis.plot(costs, [point.value for point in points], color=f'C{number % 10}', linewidth=1.2,
                      marker=MARKERS[number % len(MARKERS)], markersize=5, label=name)
            for point, cost in zip(points, costs):
                if point.interval is not None:
                    axis.vlines(cost, *point.interval, color=f'C{number % 10}', linewidth=1, alpha=0.6)
            for point, cost, short in zip(points, costs, differences([point.name for point in points])):
                axis.annotate(short, (cost, point.value), xytext=(4 * right, 4 * up), textcoords='offset points',
                              ha='left' if right > 0 else 'right', va='bottom' if up > 0 else 'top', fontsize=7,
                              color=f'C{number % 10}', zorder=1)  # below lines and markers
        axis.set_xlabel(label)
        axis.margins(0.1)
    axes[0].set_ylabel(y_label)
    axes[1].legend(fontsize=8, loc='upper left', bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)
    return figure


def differences(names: Sequence[str]) -> list[str]:
    """What names have that others have not: '18' and '50' of 'resnet18_in1k' and 'resnet50_in1k', numbers whole."""
    if len(names) < 2:
        return ['' for _ in names]
    start = re.sub(r'\d+$', '', os.path.commonprefix(names))
    rest = [name[len(start):] for name in names]
    end = re.sub(r'\d+$', '', os.path.commonprefix([name[::-1] for name in rest]))
    return [name[:len(name) - len(end)].strip('-_') for name in rest]


def _panel(columns: int = 1) -> tuple[Figure, Axes]:
    """A figure with one axis, or several in a row that share what is up."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(1.8 + 4.2 * columns, 3.6), layout='constrained')
    axes = figure.subplots(1, columns, sharey=True)
    for axis in axes if columns > 1 else [axes]:
        axis.grid(alpha=0.4)
        axis.set_axisbelow(True)
    return figure, axes

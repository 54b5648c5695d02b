"""What a trained network learned, as sections of a page: a figure, a table and the numbers of each."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from html import escape
from typing import NamedTuple

from . import figures, html_page
from .attention_statistics import AttentionStatistics
from .grad_cam import METHODS, grad_cam
from .kernel_maps import KernelMaps
from .phi_variance import PhiVariance
from .trained_model import TrainedModel, batches, pictures, predict, preprocess


class Section(NamedTuple):
    """A part of the page."""

    name: str  # of its figure's file
    title: str
    png: bytes
    caption: str
    titles: list[str] = []  # of a table
    rows: list[list[str]] = []


def attention_sections(attentions: AttentionStatistics) -> list[Section]:
    """Attentions by layer: means and distributions."""
    layers = attentions.layers
    samples = max(statistics.count for kinds in layers.values() for statistics in kinds.values())
    rows = [[name, kind, str(statistics.mean.numel()), *map(_decimals, statistics.summary().values())]
            for name, kinds in layers.items() for kind, statistics in kinds.items()]
    return [
        Section('attention_means', 'Attentions by layer', figures.to_png(figures.attention_means_figure(layers)),
                f'Means over {samples} images, as in Fig. 6 of the ODConv paper: of each element of α_s and α_w; of '
                'the channels of α_c and α_f their quartiles (box), extremes (line) and median (red).'),
        Section('attention_histograms', 'Distribution of the attentions',
                figures.to_png(figures.attention_histogram_figure(layers)),
                f'All values over {samples} images; red: mean ± standard deviation.',
                ['layer', 'attention', 'elements', 'mean', 'std', 'min', 'max'], rows),
    ]


def phi_section(phi: PhiVariance) -> Section:
    """The variance of DCD's Φ by layer."""
    rows = [[name, *map(_decimals, values.values())] for name, values in phi.layers.items()]
    return Section('phi_variance', 'Variance of Φ(x) by layer', figures.to_png(figures.phi_figure(phi.layers)),
                   'How much Φ differs from image to image: the mean variance of its entries, divided by the variance '
                   "of the layer's input, as in Fig. 6 of the DCD paper.",
                   ['layer', 'σ_Φ', 'variance of the input', 'normalised'], rows)


def kernel_section(trained: TrainedModel, counted: KernelMaps, images: Sequence[dict],
                   layers: Sequence[str] | None = None) -> Section:
    """Predicted kernels over a few images.

    Args:
        trained (TrainedModel): the network.
        counted (KernelMaps): of all images, for the table.
        images (Sequence[dict]): those to draw, as the test pipeline puts them out.
        layers (Sequence[str], optional): names of those to draw. Default: the last of each stage and of the neck.

    Raises:
        ValueError: no kernels are predicted by a layer of ``layers``.
    """
    known = list(counted.variation)
    if unknown := [name for name in layers or () if name not in known]:
        raise ValueError(f'layers must be among those that predict kernels, {", ".join(known)}, but there is '
                         f'{unknown[0]!r}')
    shown: list = []
    maps: dict[str, dict[str, list]] = dict(position_maps={}, image_maps={})
    for batch in batches(images, 1):  # each in its own size
        kernels = KernelMaps(trained.model)
        with kernels.collect():
            predict(trained, batch)
        shown += [picture.cpu().numpy() for picture in pictures(batch)]
        for kind, by_layer in maps.items():
            found = getattr(kernels, kind)
            for name in layers or _last_of_each_part(found):
                if name in found:
                    by_layer.setdefault(name, []).append(found[name][0])
    rows = [[name, values['varies_over'], _decimals(values['std'])] for name, values in counted.to_json().items()]
    return Section('kernel_maps', 'Predicted kernels', figures.to_png(figures.kernel_maps_figure(shown, **maps)),
                   'Each kernel as the sum of its k × k elements, as in Fig. 5 of the DCDC paper: kernels of LSA and '
                   'involution (yellow to violet) differ from position to position, each map on its own scale; those '
                   'of GSI (red, blue), a matrix of channels to channels, are the same at all positions of an image. '
                   'The table has the standard deviation of the sums, over the positions of an image or over images.',
                   ['layer', 'varies over', 'std'], rows)


def cam_section(networks: dict[str, tuple[TrainedModel, Sequence[dict]]], layer: str,
                method: str = 'grad-cam') -> tuple[Section, dict]:
    """Grad-CAM or Grad-CAM++ of classifiers side by side.

    Args:
        networks (dict[str, tuple[TrainedModel, Sequence[dict]]]): by title, a network and the same few images as its
            own test pipeline puts them out. The first network's are drawn.
        layer (str): name of the module to explain.
        method (str): 'grad-cam' or 'grad-cam++'. Default: 'grad-cam'.

    Returns:
        tuple[Section, dict]: and what each network predicts.

    Raises:
        ImportError: captum is not installed.
        ValueError: a network has no such layer.
    """
    columns, predicted, shown, annotated = {}, {}, [], []
    for title, (trained, images) in networks.items():
        columns[title], predicted[title] = [], []
        for batch in batches(images, 1):
            inputs = preprocess(trained, batch)
            cam = grad_cam(trained.model, inputs, layer=layer, method=method)
            name, probability = trained.class_name(cam.labels.item()), cam.probabilities.item()
            columns[title].append((cam.maps[0].cpu().numpy(), f'{name}, {probability:.2f}'))
            predicted[title].append(dict(predicted=name, probability=probability))
            if len(columns) == 1:
                shown += [picture.cpu().numpy() for picture in pictures(batch)]
                sample, = batch['data_samples']
                annotated.append(trained.class_name(sample.gt_label.item()) if 'gt_label' in sample else None)
    return Section('grad_cam', METHODS[method][0], figures.to_png(figures.cam_figure(shown, columns, annotated)),
                   'Where the evidence for the predicted class is, which is named below with its probability, in red '
                   "if the image's own is another. "
                   'Each map is scaled to its own largest value.'), predicted


def collect(trained: TrainedModel, images: Sequence[dict], batch_size: int,
            track: Callable[[Iterable[dict], int], Iterable[dict]] = lambda batches, total: batches
            ) -> list[AttentionStatistics | PhiVariance | KernelMaps]:
    """Run a network over images and collect all that it has of attentions, Φ and predicted kernels.

    Args:
        trained (TrainedModel): the network.
        images (Sequence[dict]): as its test pipeline puts them out.
        batch_size (int): images run at once; no more are in memory.
        track (Callable): wraps the iteration over the batches, of which there are ``total``, in a progress bar.
    """
    collectors = [collector for kind in (AttentionStatistics, PhiVariance, KernelMaps)
                  if (collector := kind(trained.model))]
    total = -(-len(images) // batch_size)
    if collectors:
        for batch in track(batches(images, batch_size), total):
            with ExitStack() as stack:
                for collector in collectors:
                    stack.enter_context(collector.collect())
                predict(trained, batch)
    return collectors


def render(title: str, about: Sequence[str], sections: Sequence[Section]) -> str:
    """The page in one file; ``about`` are its first paragraphs."""
    parts = [html_page.paragraph(text) for text in about]
    for section in sections:
        parts += [f'<h2>{escape(section.title)}</h2>',
                  html_page.figure(html_page.embedded_png(section.png), section.title, section.caption)]
        if section.rows:
            parts.append(html_page.folded('numbers', html_page.table(section.titles, section.rows)))
    return html_page.page(title, *parts)


def _last_of_each_part(names: Iterable[str]) -> list[str]:
    """The last layer of each stage, of the neck …: of those whose names begin with the same two parts."""
    return list({tuple(name.split('.')[:2]): name for name in names}.values())


def _decimals(value: float) -> str:
    return f'{value:.3g}'

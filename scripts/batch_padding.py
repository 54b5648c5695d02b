#!/usr/bin/env python3
"""How far the padding of a batch changes features, for docs/evaluation.md: with whole maps and with own areas averaged.

Images of the validation set are padded with zeros, as larger ones beside them would have it, and the part of each
stage's map that they fill is compared with the map that they get alone: the norm of the difference over the norm of the
map, the mean over the images.
"""
from __future__ import annotations

import argparse
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dynconv_mm import average_own_areas
from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.analysis.trained_model import batches, load_with_images, preprocess
from dynconv_mm.models.own_areas import pooling_modules

FACTORS = (1.5, 2)  # of the padded height and width


class Images(nn.Module):
    """A backbone, all of its stages, that is told the sizes of images."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        backbone.out_indices = range(4)
        self.backbone = backbone

    def forward(self, inputs: Tensor, data_samples: list | None = None) -> tuple[Tensor, ...]:
        return self.backbone(inputs)


@torch.no_grad()
def changes(model: nn.Module, images: Tensor, factor: float) -> list[float]:
    """By stage, how far padding changes an image's part of a map, relative to its norm."""
    height, width = images.shape[2:]
    batch = images.new_zeros(*images.shape[:2], round(factor * height), round(factor * width))
    batch[:, :, :height, :width] = images
    samples, found = [SimpleNamespace(img_shape=(height, width))] * len(images), []
    for alone, padded in zip(model(images, samples), model(batch, samples)):
        difference = padded[:, :, :alone.shape[2], :alone.shape[3]] - alone
        found.append((difference.flatten(1).norm(dim=1) / alone.flatten(1).norm(dim=1)).mean().item())
    return found


def rows_of(label: str, config: str, checkpoint: str, count: int) -> list[list[str]]:
    """Rows of the table: of a network, and of the same with own areas where it averages any."""
    trained, images = load_with_images(config, checkpoint, None, count)
    batch = preprocess(trained, next(batches(images, count)))
    model, rows = Images(trained.model.backbone), []
    kinds = ['whole maps', 'own areas'] if pooling_modules(model) else ['–']
    for kind in kinds:
        if kind == 'own areas':
            average_own_areas(model)
        rows.append([label, kind, *(', '.join(f'{100 * value:.1f}' for value in changes(model, batch, factor))
                                    for factor in FACTORS)])
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--network', nargs=3, action='append', required=True, metavar=('LABEL', 'CONFIG', 'CHECKPOINT'),
                        help='a trained classifier; can be given several times')
    parser.add_argument('--images', type=int, default=64, metavar='N', help='of its validation set (default: 64)')
    args = parser.parse_args(argv)
    titles = ['network', 'averages of', *(f'padded {factor:g} times, stages 1 to 4 (%)' for factor in FACTORS)]
    print(markdown_table(titles, [row for network in args.network for row in rows_of(*network, args.images)], (0, 1)))


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""How far the padding of a batch changes an image's features, for docs/evaluation.md: plain, and over own areas.

An image of 160×192 pixels is padded with zeros, as images beside it would have it, and the part of each stage's map
that it fills is compared with the map that it gets alone: the norm of the difference over the norm of the map. The
networks are untrained, their batch norms have the statistics of 16 images of that size.
"""
from __future__ import annotations

import argparse

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from dynconv_mm import average_own_areas
from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.conversion.settle_norms import random_images, settle_norms

IMAGE = 160, 192
PADDED = (192, 192), (320, 384)
NETWORKS = {
    'ResNet18': dict(type='StaticResNet'),
    'ODConv (4×)': dict(type='ODConvResNet', kernel_num=4),
    'DyConv': dict(type='DyConvResNet', kernel_num=4),
    'CondConv': dict(type='CondConvResNet'),
    'DCD': dict(type='DCDResNet'),
    'WeightNet': dict(type='WeightNetResNet'),
    'KernelWarehouse (1×)': dict(type='KWResNet'),
    'FDConv': dict(type='FDConvResNet'),
}


class Images(nn.Module):
    """A backbone that is told the sizes of images."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: Tensor, data_samples: list | None = None) -> tuple[Tensor, ...]:
        return self.backbone(inputs)


class Sample:
    """What is known of the image."""

    img_shape = IMAGE


@torch.no_grad()
def changes(model: nn.Module, image: Tensor, padded: tuple[int, int]) -> list[float]:
    """By stage, how far padding changes the image's part of a map, relative to its norm."""
    batch = image.new_zeros(1, 3, *padded)
    batch[:, :, :IMAGE[0], :IMAGE[1]] = image
    found = []
    for alone, whole in zip(model(image, [Sample]), model(batch, [Sample])):
        own = whole[:, :, :alone.shape[2], :alone.shape[3]]
        found.append(((own - alone).norm() / alone.norm()).item())
    return found


def table(networks: dict[str, dict], depth: int = 18) -> str:
    """The figures in Markdown: of all stages the least and the largest, in percent."""
    titles, rows = ['network'], []
    for suffix in ('', ', own areas'):
        titles += [f'padded to {height}×{width}{suffix}' for height, width in PADDED]
    for name, cfg in networks.items():
        torch.manual_seed(0)
        model = Images(MODELS.build(dict(cfg, depth=depth, frozen_stages=-1, norm_eval=False)).eval())
        settle_norms(model, random_images(16, 3, *IMAGE))
        image, cells = random_images(1, 3, *IMAGE, seed=1), []
        for own in (False, True):
            if own and cfg['type'] != 'StaticResNet':
                average_own_areas(model)
            for padded in PADDED:
                found = changes(model, image, padded)
                cells.append('–' if own and cfg['type'] == 'StaticResNet' else
                             f'{100 * min(found):.2g} to {100 * max(found):.2g}%')
        rows.append([name, *cells])
    return markdown_table(titles, rows)


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    print(table(NETWORKS))


if __name__ == '__main__':
    main()

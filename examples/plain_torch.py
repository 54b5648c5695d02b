#!/usr/bin/env python3
"""A small network made dynamic, trained, and exported, with torch alone."""
from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from dynconv_mm import dynamicize
from dynconv_mm.conversion.export import export


def make_network() -> nn.Sequential:
    """A classifier of two classes."""
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))


def make_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of noise, half of them with a bright square, and which they are."""
    labels = torch.arange(size) % 2
    images = torch.randn(size, 3, 32, 32)
    images[labels == 1, :, 8:20, 8:20] += 1
    return images, labels


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=60, help='training steps (default: %(default)s)')
    parser.add_argument('--out', default='plain.pt2', help='the exported program (default: %(default)s)')
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    model = make_network()
    print(dynamicize(model, op=dict(type='ODConv2d', kernel_num=4)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(args.steps):
        images, labels = make_batch(32)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, labels = make_batch(200)
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).float().mean().item()
    print(f'accuracy {accuracy:.2f}; written: {args.out}')
    export(model, args.out, format='torch-export', input_size=(32, 32))
    return accuracy


if __name__ == '__main__':
    main()

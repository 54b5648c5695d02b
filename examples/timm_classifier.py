#!/usr/bin/env python3
"""Any network of timm made dynamic, and trained by timm's optimizer with an average of its weights."""
from __future__ import annotations

import argparse

import torch
from torch.nn import functional as F

from dynconv_mm import dynamicize

try:
    import timm
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV3
except ModuleNotFoundError as error:
    raise SystemExit('this example needs timm, and was tested with 1.0.31: pip install timm') from error


def main(argv: list[str] | None = None) -> ModelEmaV3:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', default='resnet18', help='a name of timm.list_models() (default: %(default)s)')
    parser.add_argument('--pretrained', action='store_true', help='start from its published weights')
    parser.add_argument('--kernels', type=int, default=4, help='kernels of a layer (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=3, help='training steps, on noise (default: %(default)s)')
    parser.add_argument('--size', type=int, default=64, help='height and width of the images (default: %(default)s)')
    args = parser.parse_args(argv)
    model = timm.create_model(args.model, pretrained=args.pretrained, num_classes=10)
    print(dynamicize(model, op=dict(type='ODConv2d', kernel_num=args.kernels)))  # the function stays the same
    optimizer = create_optimizer_v2(model, opt='adamw', lr=1e-3, weight_decay=0.05)
    average = ModelEmaV3(model, decay=0.9)
    for step in range(args.steps):
        images, labels = torch.randn(8, 3, args.size, args.size), torch.randint(10, (8, ))
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model)
        print(f'step {step + 1}: loss {loss.item():.3f}')
    return average


if __name__ == '__main__':
    main()

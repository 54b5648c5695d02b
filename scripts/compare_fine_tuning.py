#!/usr/bin/env python3
"""Fine-tune dynamic networks from a warm start, and the static network that they start as, on handwritten digits.

A static ResNet18 without its last stage, of a quarter of the width, is trained on scikit-learn's digits 0 to 4. All
networks then start from it and learn 5 to 9, turned, scaled and noisy, from few images, each with the same steps,
images and schedule. Results are kept in docs/fine_tuning.json, run by run, and the table in docs/warm_start.md is made
of them.
"""
from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pages import ROOT, page_with

from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.atomic_write import write_text

if TYPE_CHECKING:
    from torch import Tensor, nn

RESULTS = ROOT / 'docs' / 'fine_tuning.json'
PAGE = ROOT / 'docs' / 'warm_start.md'
SEEDS = (0, 1, 2)
IMAGE_SIZE = 24  # pixels
TRAIN_IMAGES = 200  # of 5 to 9; the others are tested
VIEWS = 2  # of each test image, turned, scaled and noisy in another way
BATCH = 20
PRETRAIN_STEPS, STEPS = 200, 150
OPTIMIZER = dict(lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
NOISE = 0.01  # between kernels
SMALL = dict(depth=18, num_stages=3, out_indices=(2, ), stem_channels=16, base_channels=16)


class Method(NamedTuple):
    """A network, and how it starts."""

    kind: str
    arguments: dict = {}
    warm: bool = True  # from the static network trained on 0 to 4
    scaled: bool = False  # whether its kernels learn as fast as static ones, by dynconv_mm.conversion.kernel_rates


METHODS = {
    'static ResNet18, from scratch': Method('ResNet', warm=False),
    'static ResNet18': Method('ResNet'),
    'DCD': Method('DCDResNet'),
    'CondConv (8×)': Method('CondConvResNet'),
    'DyConv (4×)': Method('DyConvResNet'),
    'DyConv (4×), kernels scaled': Method('DyConvResNet', scaled=True),
    'ODConv (1×)': Method('ODConvResNet', dict(kernel_num=1)),
    'ODConv (1×), kernels scaled': Method('ODConvResNet', dict(kernel_num=1), scaled=True),
    'ODConv (4×)': Method('ODConvResNet', dict(kernel_num=4)),
    'ODConv (4×), kernels scaled': Method('ODConvResNet', dict(kernel_num=4), scaled=True),
}


def make_network(method: Method, classes: int = 5) -> nn.Module:
    """A classifier: the method's backbone and a fully connected layer."""
    from collections import OrderedDict

    from mmengine.logging import MMLogger
    from torch import nn

    from dynconv_mm.models import backbones

    MMLogger.get_instance('compare_fine_tuning').setLevel('ERROR')  # else every fresh parameter is reported

    class Classifier(nn.Module):

        def __init__(self) -> None:
            super().__init__()
            self.backbone = getattr(backbones, method.kind)(**SMALL, **method.arguments)
            self.backbone.init_weights()
            self.head = nn.Sequential(OrderedDict(fc=nn.Linear(self.backbone.feat_dim, classes)))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone(x)[-1].mean((2, 3)))

    return Classifier()


def load_images() -> dict[str, tuple[Tensor, Tensor]]:
    """Images Tensor[n, 1, 8, 8] and labels Tensor[n] from 0, of 'pretrain' (0 to 4), 'train' and 'test' (5 to 9)."""
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    others = (labels >= 5).nonzero().flatten()
    train, test = train_test_split(others, train_size=TRAIN_IMAGES, random_state=0, stratify=labels[others])
    return {'pretrain': (images[labels < 5], labels[labels < 5]), 'train': (images[train], labels[train] - 5),
            'test': (images[test], labels[test] - 5)}


def view(images: Tensor, hard: bool) -> Tensor:
    """Images as networks see them, Tensor[n, 3, IMAGE_SIZE, IMAGE_SIZE]: moved at random; if hard, turned by up to 60°,
    scaled by 0.7 to 1.1, dimmed and noisy too."""
    import math

    import torch
    from torch.nn import functional as F

    n = len(images)
    angle = (2 * torch.rand(n) - 1) * math.pi / 3 * hard
    scale = 1 / (0.7 + 0.4 * torch.rand(n)) if hard else torch.ones(n)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    shift = 0.3 * (torch.rand(n, 2) - 0.5)
    theta = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], 1).view(n, 2, 3)
    grid = F.affine_grid(theta, [n, 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    seen = F.grid_sample(images, grid, align_corners=False)
    if hard:
        seen = seen * (0.3 + 0.7 * torch.rand(n, 1, 1, 1)) + 0.2 * torch.randn_like(seen)
    return ((seen - 0.3) / 0.4).expand(-1, 3, -1, -1)


def train(network: nn.Module, images: Tensor, labels: Tensor, steps: int, hard: bool, rates: dict[str, float],
          about: str) -> None:
    """SGD with a cosine schedule; parameters with a rate learn that many times as fast, and decay as others do."""
    import torch
    from torch.nn import functional as F
    from tqdm import tqdm

    groups = [dict(params=[parameter], lr=OPTIMIZER['lr'] * rates.get(name, 1),
                   weight_decay=OPTIMIZER['weight_decay'] / rates.get(name, 1))
              for name, parameter in network.named_parameters()]
    optimizer = torch.optim.SGD(groups, **OPTIMIZER)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in tqdm(range(steps), about, leave=False):
        batch = torch.randint(len(images), (BATCH, ))
        optimizer.zero_grad()
        F.cross_entropy(network(view(images[batch], hard)), labels[batch]).backward()
        optimizer.step()
        schedule.step()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """On views of the images that are the same for all networks, in percent."""
    import torch

    torch.manual_seed(0)
    network.eval()
    with torch.no_grad():
        found = [network(view(images, hard=True)).argmax(1) == labels for _ in range(VIEWS)]
    return 100 * torch.cat(found).float().mean().item()


def pretrained(seed: int, steps: int, folder: Path) -> dict[str, Tensor]:
    """The static network trained on 0 to 4, kept in a folder."""
    import torch

    from dynconv_mm.conversion import read_state_dict, write_checkpoint

    path = folder / f'static_seed{seed}_{steps}steps.pth'
    if not path.exists():
        torch.manual_seed(seed)
        network = make_network(METHODS['static ResNet18'])
        train(network, *load_images()['pretrain'], steps, False, {}, f'static, 0 to 4, seed {seed}')
        write_checkpoint(path, network.state_dict())
    return read_state_dict(path)


def run(method: Method, seed: int, pretrain_steps: int, steps: int, folder: Path, about: str) -> float:
    """Accuracy on 5 to 9 after fine-tuning, in percent."""
    import torch

    from dynconv_mm.conversion import kernel_rates, warm_start

    static = pretrained(seed, pretrain_steps, folder) if method.warm else None
    torch.manual_seed(seed)
    network = make_network(method)
    if static is not None and method.kind == 'ResNet':
        backbone = {name.partition('.')[2]: value for name, value in static.items() if name.startswith('backbone.')}
        network.backbone.load_state_dict(backbone)
    elif static is not None:
        warm_start(network, static, parts=['backbone'], noise=NOISE)
    rates = kernel_rates(network) if method.scaled else {}
    images = load_images()
    torch.manual_seed(seed)  # the same batches for all
    train(network, *images['train'], steps, True, rates, about)
    return accuracy(network, *images['test'])


def render(results: dict[str, dict[str, float]]) -> str:
    """The table of the page; a run that is not done is a dash."""
    rows = []
    for name in METHODS:
        values = results.get(name, {})
        spread = f' ± {statistics.stdev(values.values()):.1f}' if len(values) > 1 else ''
        rows.append([name, *(f'{values[str(seed)]:.1f}' if str(seed) in values else '–' for seed in SEEDS),
                     f'**{statistics.mean(values.values()):.1f}{spread}**' if values else '–'])
    return markdown_table(['network', *(f'seed {seed}' for seed in SEEDS), 'accuracy (%)'], rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--again', action='store_true', help='run what has a result too')
    parser.add_argument('--only', nargs='+', metavar='NETWORK', choices=METHODS, default=list(METHODS),
                        help='networks of the table to run')
    parser.add_argument('--seeds', nargs='+', type=int, choices=SEEDS, default=SEEDS, metavar='SEED')
    parser.add_argument('--folder', type=Path, default=ROOT / 'work_dirs' / 'fine_tuning',
                        help='where the static networks are kept (%(default)s)')
    args = parser.parse_args(argv)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    runs = [(name, seed) for seed in args.seeds for name in args.only
            if args.again or str(seed) not in results.get(name, {})]
    for number, (name, seed) in enumerate(runs, 1):
        about = f'[{number}/{len(runs)}] {name}, seed {seed}'
        value = run(METHODS[name], seed, PRETRAIN_STEPS, STEPS, args.folder, about)
        print(f'{about}: {value:.1f}%', flush=True)
        results.setdefault(name, {})[str(seed)] = round(value, 2)
        write_text(RESULTS, json.dumps(results, indent=1, ensure_ascii=False) + '\n')
    page = page_with(PAGE.read_text(encoding='utf-8'), 'compare_fine_tuning', {'digits': render(results)})
    write_text(PAGE, page)
    print(render(results))


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""Measure how large the gradients of the compared networks are before they learn: a table of docs/comparison.md.

    python scripts/fresh_gradients.py --data data/glyphs
"""
from __future__ import annotations

import argparse
import functools
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from compare_methods import COMPARED, MOBILENET, NORMS, RESNET18, SCALE, Run, build, network_of, neutralize
from pages import ROOT, page_with

from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.atomic_write import write_text

if TYPE_CHECKING:
    from compare_methods import Network
    from glyph_task import Glyphs

PAGE = ROOT / 'docs' / 'comparison.md'
SEEDS = 0, 1, 2
BATCH = 64
NONE = '–'
WHEN = {'as annealing begins': ('start', False), 'as it ends': ('end', False), 'neutral at first': ('end', True)}
COLUMNS = {**{f'{family}, {about}': (family, {}, *when) for family in (RESNET18, MOBILENET)
              for about, when in WHEN.items()},
           'MobileNetV2 × 1, as annealing ends': (MOBILENET, dict(widen_factor=1.), *WHEN['as it ends'])}


def gradient_norm(family: str, network: Network, glyphs: Glyphs, seed: int, end: str, neutral: bool) -> float | None:
    """The norm of all gradients of a fresh backbone, with one batch of pictures; None: it has nothing to neutralise, or
    no temperature that would begin otherwise than it ends.

    Args:
        end (str): 'start' or 'end', of the annealing.
        neutral (bool): whether attentions are the same for all pictures.
    """
    import torch
    from glyph_task import batches
    from mmengine.runner import set_random_seed
    from training_parity import annealing_of

    from dynconv_mm.layers.temperature import TemperatureMixin

    set_random_seed(seed)
    model = build(family, network, len(glyphs.classes)).train()
    annealing = annealing_of(model, 1)
    if neutral and not any(hasattr(module, 'neutralize_attention') for module in model.modules()) \
            or annealing is None and end == 'start':
        return None
    if neutral:
        neutralize(model, False)
    for module in model.modules():
        if annealing is not None and isinstance(module, TemperatureMixin):
            module.set_temperature(annealing[end])
    batch = next(iter(batches(glyphs, 1, BATCH, seed, SCALE.get(family, 1))))
    model.loss(batch['inputs'], batch['data_samples'])['loss'].backward()
    gradients = [parameter.grad for parameter in model.backbone.parameters() if parameter.grad is not None]
    return torch.stack([gradient.norm() for gradient in gradients]).norm().item()


@functools.cache
def static_norm(family: str, glyphs: Glyphs, seed: int, *arguments: tuple[str, object]) -> float:
    """That of the static network, which all methods are compared with."""
    return gradient_norm(family, with_arguments(family, 'static', dict(arguments)), glyphs, seed, 'end', False)


def with_arguments(family: str, method: str, arguments: dict) -> Network:
    """A network of the comparison whose backbone differs in some of them."""
    network = network_of(Run(family, method, 0., 0))
    return network._replace(arguments={**network.arguments, **arguments})


def relative(method: str, glyphs: Glyphs, family: str, arguments: dict, end: str, neutral: bool) -> float | None:
    """The same as a multiple of the static network's, the geometric mean over the seeds.

    Args:
        arguments (dict): of both backbones, that differ from the family's.
    """
    values = []
    for seed in SEEDS:
        value = gradient_norm(family, with_arguments(family, method, arguments), glyphs, seed, end, neutral)
        if value is None:
            return None
        values.append(value / static_norm(family, glyphs, seed, *arguments.items()))
    if not all(0 < value < math.inf for value in values):
        return math.nan
    return statistics.geometric_mean(values)


def in_digits(value: float | None) -> str:
    """Two digits of it, or one and a tenth, or its power of ten."""
    if value is None:
        return NONE
    if not 0 < value < math.inf:
        return 'not finite' if value else '0'
    value = float(f'{value:.1e}')
    if value < 10:
        return f'{value:.1f}'
    return f'{value:,.0f}' if value < 1e6 else f'10^{math.floor(math.log10(value))}'


def render(glyphs: Glyphs) -> str:
    """The table."""
    from tqdm import tqdm
    methods = [method for method in COMPARED[RESNET18] if method in COMPARED[MOBILENET] and method != 'static']
    methods += [method for method, network in NORMS[RESNET18].items() if not network.neutral]
    rows = [[method, *(in_digits(relative(method, glyphs, *column)) for column in COLUMNS.values())]
            for method in tqdm(methods, 'methods', disable=None)]
    return markdown_table(['gradient, of static', *COLUMNS], rows)


def main(argv: list[str] | None = None) -> None:
    from glyph_task import load_glyphs
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, default=ROOT / 'data' / 'glyphs', help='the pictures (%(default)s)')
    args = parser.parse_args(argv)
    try:
        glyphs = load_glyphs(args.data)['train']
    except ValueError as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    write_text(PAGE, page_with(PAGE.read_text(encoding='utf-8'), 'fresh_gradients', {'gradients': render(glyphs)}))


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""Write docs/paper_tables.md: parameters and multiply-adds as the papers print them, as built here, the difference."""
from __future__ import annotations

import argparse
import functools
import textwrap
from typing import NamedTuple

import figures_dcd
import figures_dcdc
import figures_odconv
from pages import ROOT, build, load_config
from paper_rows import Network, Paper, Row, Table

from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.atomic_write import write_text

PAGE = ROOT / 'docs' / 'paper_tables.md'
PAPERS = (figures_odconv.PAPER, figures_dcd.PAPER, figures_dcdc.PAPER)
TOLERANCE = 0.01  # relative; what is further off needs a reason
UNITS = {'M': 1e6, 'G': 1e9}
INTRODUCTION = """\
# The papers' tables

Written by `python scripts/paper_tables.py`; a test checks that it is up to date. Every row of the papers' tables that
gives parameters (Params) or multiply-adds (MAdds, FLOPs) of a network that is built here: as printed, as built here
(with one more digit), and the difference. Params in millions. Classifiers have 1000 classes and get images of
224 × 224, detectors 80 classes and images of 1280 × 800.

**The rule.** What is more than 1% off, and parameters that are one or more off in their last printed digit, name a
reason, which stands below the tables of its paper. The tool fails on a difference without a reason, on a reason without
a difference, and on a reason that no row names.

Multiply-adds are counted by the papers' equations (`dynconv_mm.analysis.count_madds`), not by how a layer happens to be
executed: ODConv by its Eq. 3 (one kernel) and 4, with the width of the hidden vector for c_in / r, and without the
products of attentions that are left out; DyConv and CondConv as attention plus n·|W| for adding up the kernels; DCD by
its Sections 3.3 and 3.4, the branch plus Λ by min(|W|, hw·C) plus PΦQᵀ in the cheapest order, added to the kernel or
applied to the features; involution and DCDC as the convolutions that predict kernels plus the application of these;
local attention as these too, and the products or differences of queries and keys; SE, CBAM and ECA as averages, FCs or
convolutions, and scaling. Norms, biases and activations count nothing.
"""


class Figure(NamedTuple):
    """Parameters and multiply-adds."""

    params: int
    madds: int


def config_of(network: Network):
    """The config of a network."""
    cfg = load_config(f'{network.config}.py')
    cfg.model.backbone.update(dict(network.backbone))
    if network.head:
        cfg.model.head.update(dict(network.head))
    return cfg


@functools.cache
def measure(network: Network) -> dict[str, Figure]:
    """What a network costs, by each way to count it that a paper has (`Table.counted`)."""
    from dynconv_mm.analysis import measure_complexity
    found = measure_complexity(build(config_of(network)))
    total = found.total_madds
    backbone = sum(sum(layer.madds.values()) for layer in found.layers if layer.name.startswith('backbone.'))
    return {'all': Figure(found.params, total), 'trainable': Figure(found.trainable, total),
            'without classifier': Figure(found.backbone, total), 'backbone': Figure(found.backbone, backbone)}


def ours(row: Row, table: Table) -> Figure:
    """What a table counts of the network of a row."""
    figure = measure(row.network)[table.counted]
    if row.and_classifier_of is None:
        return figure
    pretrained = measure(row.and_classifier_of)
    return figure._replace(params=figure.params + pretrained['all'].params - pretrained['without classifier'].params)


def difference(value: float, printed: float) -> str:
    return f'{value / printed - 1:+.1%}'.replace('-0.0%', '+0.0%')


def params_agree(params: int, printed: str) -> bool:
    """Whether the printed parameters are ours within the tolerance, and less than one off in their last digit."""
    millions, last = params / 1e6, 10.**-len(printed.partition('.')[2])
    return abs(millions / float(printed) - 1) <= TOLERANCE and abs(millions - float(printed)) < last


def madds_agree(madds: int, printed: str) -> bool:
    """Whether the printed multiply-adds are ours within the tolerance."""
    return abs(madds / UNITS[printed[-1]] / float(printed[:-1]) - 1) <= TOLERANCE


def check(row: Row, figure: Figure, paper: Paper) -> None:
    """Hold a row to the rule.

    Raises:
        SystemExit: a figure differs and names no reason, or agrees and names one, or the paper has none of that name.
    """
    for what, printed, value, why, agree in (
            ('params', row.params, figure.params, row.params_why, params_agree),
            ('madds', row.madds, figure.madds, row.madds_why, madds_agree)):
        found = f'{paper.title.partition(":")[0]}, {row.label!r}: {what} are {value / 1e6:.3f}M, printed {printed}'
        agrees = printed is None or agree(value, printed)
        if agrees and why is not None:
            raise SystemExit(f'paper_tables: {found}: this needs no reason, but {what}_why is {why!r}')
        if not agrees and why not in paper.reasons:
            raise SystemExit(f'paper_tables: {found}: say why in {what}_why and the reasons of its paper')


def params_cells(printed: str | None, params: int) -> list[str]:
    """As printed, ours, the difference."""
    if printed is None:
        return ['', f'{params / 1e6:.2f}', '']
    return [printed, f'{params / 1e6:.{len(printed.partition(".")[2]) + 1}f}',
            difference(params / 1e6, float(printed))]


def madds_cells(printed: str | None, madds: int) -> list[str]:
    """As printed, ours, the difference."""
    if printed is None:
        return ['', f'{madds / 1e9:.2f}G', '']
    number, unit = printed[:-1], printed[-1]
    value = madds / UNITS[unit]
    return [printed, f'{value:.{len(number.partition(".")[2]) + 1}f}{unit}', difference(value, float(number))]


def label(row: Row) -> str:
    """Of a row, leading to its config where there is one of this very network."""
    if '::' in row.network.config or not row.network.is_of_the_config:
        return row.label
    return f'[{row.label}](../configs/{row.network.config}.py)'


def table_section(table: Table, paper: Paper) -> str:
    """A heading and a table.

    Raises:
        SystemExit: a row is against the rule.
    """
    has_madds = any(row.madds is not None for row in table.rows)
    has_beside = any(row.beside is not None for row in table.rows)
    header = ['network', 'Params, paper', 'ours', 'difference']
    header += ['MAdds, paper', 'ours', 'difference'] if has_madds else []
    header += ["Params, paper's build", 'MAdds'] if has_beside else []
    lines = []
    for row in table.rows:
        figure = ours(row, table)
        check(row, figure, paper)
        cells = [label(row), *params_cells(row.params, figure.params)]
        cells += madds_cells(row.madds, figure.madds) if has_madds else []
        if has_beside:
            beside = row.beside and measure(row.beside)[table.counted]
            cells += [params_cells(None, beside.params)[1],
                      madds_cells(row.madds, beside.madds)[1]] if beside else ['', '']
        lines.append([*cells, ', '.join(dict.fromkeys(why for why in (row.params_why, row.madds_why) if why))])
    return f'### {table.title}\n\n{markdown_table([*header, "reason"], lines, text_columns=(0, -1))}'


def paper_section(paper: Paper) -> str:
    """The tables of a paper, and the reasons that they name.

    Raises:
        SystemExit: a row is against the rule, or no row names one of the reasons.
    """
    named = {why for table in paper.tables for row in table.rows for why in (row.params_why, row.madds_why)}
    idle = sorted(paper.reasons.keys() - named)
    if idle:
        raise SystemExit(f'paper_tables: {paper.title.partition(":")[0]}: no row names {", ".join(idle)}')
    reasons = '\n'.join(textwrap.fill(f'- **{name}**: {text}.', 120, subsequent_indent='  ', break_long_words=False,
                                      break_on_hyphens=False) for name, text in paper.reasons.items())
    parts = [f'## {paper.title}', paper.introduction, *(table_section(table, paper) for table in paper.tables),
             '### Reasons', f'{reasons}\n', *([paper.conclusion] if paper.conclusion else [])]
    return '\n\n'.join(part.strip() for part in parts) + '\n'


def render() -> str:
    """The page."""
    from rich.progress import track
    return '\n'.join([INTRODUCTION, *(paper_section(paper) for paper in track(PAPERS, 'counting'))])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if the page is not up to date')
    args = parser.parse_args(argv)
    text, name = render(), f'{PAGE.parent.name}/{PAGE.name}'
    if PAGE.exists() and PAGE.read_text(encoding='utf-8') == text:
        print(f'{name}: up to date')
        return
    if args.check:
        raise SystemExit(f'{parser.prog}: {name} is not up to date; run it without --check')
    write_text(PAGE, text)
    print(f'{name}: written')


if __name__ == '__main__':
    main()

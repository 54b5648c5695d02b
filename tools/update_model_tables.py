#!/usr/bin/env python3
"""Count the parameters of every config, and write them into the model index and each method's metafile and README."""
from __future__ import annotations

import argparse
import re
from pathlib import Path

import yaml
from paper_tables import ROOT, build, load_config, write

METHODS = {
    'odconv': dict(Name='ODConv', Title='Omni-Dimensional Dynamic Convolution',
                   URL='https://openreview.net/forum?id=DmpCfq6Mg39'),
    'dyconv': dict(Name='DyConv', Title='Dynamic Convolution: Attention over Convolution Kernels',
                   URL='https://arxiv.org/abs/1912.03458'),
    'condconv': dict(Name='CondConv',
                     Title='CondConv: Conditionally Parameterized Convolutions for Efficient Inference',
                     URL='https://arxiv.org/abs/1904.04971'),
    'dcd': dict(Name='DCD', Title='Revisiting Dynamic Convolution via Matrix Decomposition',
                URL='https://arxiv.org/abs/2103.08756'),
    'rednet': dict(Name='RedNet', Title='Involution: Inverting the Inherence of Convolution for Visual Recognition',
                   URL='https://arxiv.org/abs/2103.06255'),
    'dcdc': dict(Name='DCDC', Title='Dual Complementary Dynamic Convolution for Image Recognition',
                 URL='https://arxiv.org/abs/2211.06163'),
}
TABLE = re.compile(r'(<!-- models -->\n).*?(<!-- /models -->)', re.DOTALL)


def configs(method: str) -> list[Path]:
    """The configs of a method, classifiers first."""
    files = sorted((ROOT / 'configs' / method).glob('*.py'), key=lambda file: (not file.stem.endswith('in1k'),
                                                                               file.stem))
    return [file.relative_to(ROOT) for file in files]


def count_parameters(config: Path) -> int:
    """All parameters of the model that a config describes, without allocating them."""
    model = build(load_config(config.relative_to('configs').as_posix()))
    return sum(parameter.numel() for parameter in model.parameters())


def metafile(method: str, counts: dict[Path, int]) -> str:
    """The metafile of a method, from which mim's search lists its models."""
    about = METHODS[method]
    collection = dict(Name=about['Name'], Metadata=dict(Architecture=[about['Name']]),
                      Paper=dict(URL=about['URL'], Title=about['Title']), README=f'configs/{method}/README.md')
    models = [dict(Name=config.stem, **{'In Collection': about['Name']}, Config=config.as_posix(),
                   Metadata={'Parameters': count,
                             'Training Data': 'ImageNet-1k' if config.stem.endswith('in1k') else 'COCO'})
              for config, count in counts.items()]
    return yaml.safe_dump(dict(Collections=[collection], Models=models), sort_keys=False)


def table(counts: dict[Path, int]) -> str:
    """Markdown."""
    rows = [f'| [`{config.stem}`]({config.name}) | {count / 1e6:.2f} |' for config, count in counts.items()]
    return '\n'.join(['| config | Params (M) |', '|---|---:|', *rows]) + '\n'


def render() -> dict[Path, str]:
    """What each file should hold."""
    from rich.progress import track
    files = {}
    for method in METHODS:
        counts = {config: count_parameters(config) for config in track(configs(method), method)}
        files[ROOT / 'configs' / method / 'metafile.yml'] = metafile(method, counts)
        readme = ROOT / 'configs' / method / 'README.md'
        rows = table(counts)
        files[readme] = TABLE.sub(lambda match, rows=rows: match[1] + rows + match[2],
                                  readme.read_text(encoding='utf-8'))
    files[ROOT / 'model-index.yml'] = yaml.safe_dump(
        dict(Import=[f'configs/{method}/metafile.yml' for method in METHODS]))
    return files


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if a file is not up to date')
    args = parser.parse_args(argv)
    stale = {file: text for file, text in render().items()
             if not file.exists() or file.read_text(encoding='utf-8') != text}
    names = ', '.join(str(file.relative_to(ROOT)) for file in stale)
    if args.check and stale:
        raise SystemExit(f'update_model_tables: not up to date: {names}; run tools/update_model_tables.py')
    for file, text in stale.items():
        write(file, text)
    print(f'written: {names}' if stale else 'all up to date')


if __name__ == '__main__':
    main()

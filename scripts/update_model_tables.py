#!/usr/bin/env python3
"""Write the model index, and each method's metafile and README: every config with its costs and the paper's results."""
from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import yaml
from pages import ROOT, build, load_config
from paper_results import CLASSIFICATION, METRICS, RESULTS, Metric, tasks

from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.atomic_write import write_text

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
    'ddf': dict(Name='DDF', Title='Decoupled Dynamic Filter Networks', URL='https://arxiv.org/abs/2104.14107'),
    'san': dict(Name='SAN', Title='Exploring Self-attention for Image Recognition',
                URL='https://arxiv.org/abs/2004.13621'),
    'lrnet': dict(Name='LR-Net', Title='Local Relation Networks for Image Recognition',
                  URL='https://arxiv.org/abs/1904.11491'),
    'sasa': dict(Name='SASA', Title='Stand-Alone Self-Attention in Vision Models',
                 URL='https://arxiv.org/abs/1906.05909'),
    'cgc': dict(Name='CGC', Title='Context-Gated Convolution', URL='https://arxiv.org/abs/1910.05577'),
    'weightnet': dict(Name='WeightNet', Title='WeightNet: Revisiting the Design Space of Weight Networks',
                      URL='https://arxiv.org/abs/2007.11823'),
    'we': dict(Name='WE', Title='Weight Excitation: Built-in Attention Mechanisms in Convolutional Neural Networks',
               URL='https://www.ecva.net/papers/eccv_2020/papers_ECCV/html/7039_ECCV_2020_paper.php'),
    'kw': dict(Name='KernelWarehouse', Title='KernelWarehouse: Rethinking the Design of Dynamic Convolution',
               URL='https://arxiv.org/abs/2406.07879'),
    'fdconv': dict(Name='FDConv', Title='Frequency Dynamic Convolution for Dense Image Prediction',
                   URL='https://arxiv.org/abs/2503.18783'),
    'static': dict(Name='Static', Title=None, URL=None),
}
#: whose papers' tables count ResNets so, unlike the released code
STRIDE_IN_1X1 = ('odconv', 'dyconv', 'condconv', 'dcd', 'cgc', 'weightnet', 'we', 'static')
DETECTOR_SIZE = (800, 1280)
DATASETS = {True: 'ImageNet-1k', False: 'COCO'}  # of a classifier, of a detector
#: what ``mim download`` takes for an address, and names where it cannot be read
NO_WEIGHTS = 'No weights are published with dynconv_mm: its README says how to get some under "Pre-trained weights"'
SHORT = {'Top 1 Accuracy': 'Top-1'}
TABLE = re.compile(r'(<!-- models -->\n).*?(<!-- /models -->)', re.DOTALL)


def configs(method: str) -> list[Path]:
    """The configs of a method, classifiers first."""
    files = sorted((ROOT / 'configs' / method).glob('*.py'), key=lambda file: (not file.stem.endswith('in1k'),
                                                                               file.stem))
    return [file.relative_to(ROOT) for file in files]


class Costs(NamedTuple):
    """What a config's model is counted to have."""

    params: int
    madds: int  # of a classifier for an image of 224 × 224, of a detector's backbone for one of 1280 × 800
    madds_in_1x1: int | None = None  # of a classifier with the stride in a bottleneck's first 1×1 convolution


def count(config: Path) -> Costs:
    """The costs of the model that a config describes, without allocating it."""
    cfg = load_config(config.relative_to('configs').as_posix())
    is_classifier = tasks(config.stem) == [CLASSIFICATION]
    costs = _count(cfg, is_classifier)
    if is_classifier and config.parent.name in STRIDE_IN_1X1 and cfg.model.backbone.get('depth', 0) >= 50:
        cfg.model.backbone.style = 'caffe'
        costs = costs._replace(madds_in_1x1=_count(cfg, is_classifier).madds)
    return costs


_counted: dict[str, Costs] = {}  # by their configs: recipes share a network
_backbone_madds: dict[str, int] = {}  # detectors share a backbone


def _count(cfg, is_classifier: bool) -> Costs:
    from dynconv_mm.analysis import count_madds
    if is_classifier:  # how it is trained costs nothing
        cfg.model.head.pop('loss')
        cfg.model.pop('train_cfg', None)
        cfg.model.head.loss = dict(type='CrossEntropyLoss')
    key, backbone = str(cfg.model), str(cfg.model.backbone)
    if key not in _counted:
        model = build(cfg)
        if not is_classifier and backbone not in _backbone_madds:
            _backbone_madds[backbone] = count_madds(model.backbone, DETECTOR_SIZE)
        _counted[key] = Costs(sum(parameter.numel() for parameter in model.parameters()),
                              count_madds(model) if is_classifier else _backbone_madds[backbone])
    return _counted[key]


def metafile(method: str, costs: dict[Path, Costs]) -> str:
    """The metafile of a method, from which mim's search and ``dynconv_mm.list_models`` list its models.

    A result is the paper's, as the name of each metric says.
    """
    about = METHODS[method]
    collection = dict(Name=about['Name'], Metadata=dict(Architecture=[about['Name']]),
                      Paper=dict(URL=about['URL'], Title=about['Title']), README=f'configs/{method}/README.md')
    if about['URL'] is None:
        collection.pop('Paper')
    models = []
    for config, cost in costs.items():
        kinds = tasks(config.stem)
        is_classifier = kinds == [CLASSIFICATION]
        metadata = {'Training Data': DATASETS[is_classifier], 'Tasks': kinds, 'Parameters': cost.params,
                    'FLOPs' if is_classifier else 'Backbone FLOPs': cost.madds}
        model = {'Name': config.stem, 'In Collection': about['Name'], 'Config': config.as_posix(),
                 'Metadata': metadata, 'Weights': NO_WEIGHTS}
        results = [dict(Task=task, Dataset=DATASETS[is_classifier],
                        Metrics={f'{metric.name} ({metric.source})': value for metric, value in metrics})
                   for (task, _), metrics in itertools.groupby(RESULTS.get(config.stem, {}).items(), _task_and_source)]
        models.append({**model, 'Results': results} if results else model)
    return yaml.safe_dump(dict(Collections=[collection], Models=models), sort_keys=False)


def _task_and_source(result: tuple[Metric, float]) -> tuple[str, str]:
    return result[0].task, result[0].source


def tables(costs: dict[Path, Costs]) -> str:
    """Markdown: the classifiers, and the detectors where there are any."""
    detectors = {config: cost for config, cost in costs.items() if tasks(config.stem) != [CLASSIFICATION]}
    classifiers = {config: cost for config, cost in costs.items() if config not in detectors}
    return '\n'.join(_table(rows, flops) for rows, flops in (
        (classifiers, 'FLOPs (G)'), (detectors, 'FLOPs of the backbone (G)')) if rows)


def _table(costs: dict[Path, Costs], flops: str) -> str:
    metrics = [metric for metric in METRICS if any(metric in RESULTS.get(config.stem, {}) for config in costs)]
    in_1x1 = any(cost.madds_in_1x1 for cost in costs.values())
    header = ['config', 'Params (M)', flops, *['stride in 1×1'] * in_1x1,
              *(f'{SHORT.get(metric.name, metric.name)}, {metric.source}' for metric in metrics)]
    rows = []
    for config, cost in costs.items():
        results = RESULTS.get(config.stem, {})
        rows.append([f'[`{config.stem}`]({config.name})', f'{cost.params / 1e6:.2f}', f'{cost.madds / 1e9:.3f}',
                     *[f'{cost.madds_in_1x1 / 1e9:.3f}' if cost.madds_in_1x1 else ''] * in_1x1,
                     *(str(results.get(metric, '')) for metric in metrics)])
    return markdown_table(header, rows)


def render() -> dict[Path, str]:
    """What each file should hold."""
    from rich.progress import track
    files = {}
    for method in METHODS:
        costs = {config: count(config) for config in track(configs(method), method)}
        files[ROOT / 'configs' / method / 'metafile.yml'] = metafile(method, costs)
        readme = ROOT / 'configs' / method / 'README.md'
        rows = tables(costs)
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
        raise SystemExit(f'update_model_tables: not up to date: {names}; run scripts/update_model_tables.py')
    for file, text in stale.items():
        write_text(file, text)
    print(f'written: {names}' if stale else 'all up to date')


if __name__ == '__main__':
    main()

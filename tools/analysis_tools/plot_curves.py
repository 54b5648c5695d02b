#!/usr/bin/env python3
"""Draw a metric of several trainings over their epochs from mmengine's logs, with seeds as bands.

ODConv's Fig. 4 shows accuracies of training and validation so, DCD's Fig. 5 errors (--error).
"""
from __future__ import annotations

import argparse

from runs import METRIC, add_runs, draw_and_write, read_runs


def draw(args: argparse.Namespace):
    """The figure.

    Raises:
        FileNotFoundError, ValueError: of the user's making; the message says what to do.
    """
    from dynconv_mm.analysis.result_figures import curves_figure, in_percent, metric_label
    from dynconv_mm.analysis.training_log import band
    metrics = {'validation': args.metric, 'training': args.train_metric}
    curves, scales = {}, set()
    for label, logs in read_runs(args.run).items():
        curves[label] = {kind: band(logs, metric) for kind, metric in metrics.items() if metric}
        scales |= {log.by_epoch for log in logs}
    if len(scales) > 1:
        raise ValueError('--run: some trainings count epochs and some iterations, which share no axis')
    if args.error:
        if not in_percent(args.metric):
            raise ValueError(f'--error is 100% less the metric, which must be in percent, but is {args.metric!r}')
        curves = {label: {kind: curve._replace(mean=[100 - value for value in curve.mean],
                                               low=[100 - value for value in curve.high],
                                               high=[100 - value for value in curve.low])
                          for kind, curve in kinds.items()} for label, kinds in curves.items()}
    return curves_figure(curves, 'epoch' if True in scales else 'iteration', metric_label(args.metric, args.error))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_runs(parser, 'a network and its trainings, one for each seed: the --work-dir of `mim train`, or the '
             'vis_data/scalars.json in it; can be given several times', required=True)
    parser.add_argument('--metric', **METRIC)
    parser.add_argument('--train-metric', metavar='NAME', help='of training, drawn dashed, such as accuracy_top-1, '
                        'which mmpretrain logs with model.head.cal_acc=True (default: none)')
    parser.add_argument('--error', action='store_true', help='draw 100%% less the metric')
    draw_and_write(parser, draw, argv)


if __name__ == '__main__':
    main()

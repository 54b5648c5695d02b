#!/usr/bin/env python3
"""Measure what the execution plans cost on this machine, and write the cost model that chooses among them."""
from __future__ import annotations

import argparse
import json
from pathlib import Path


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--calibrate', type=Path, required=True, metavar='FILE',
                        help='measure layers by all plans (about six minutes, with nothing else running), fit the cost '
                        'model and write it to FILE; the package reads dynconv_mm/functional/plan_costs.json')
    parser.add_argument('--rounds', type=int, default=3, help='measurements of each layer and plan (default: 3)')
    parser.add_argument('--threads', type=int, default=1, help='threads to compute with (default: 1)')
    args = parser.parse_args(argv)

    import torch
    from rich.progress import track

    from dynconv_mm.analysis import calibration
    torch.set_num_threads(args.threads)
    measurements = []
    for is_training in (False, True):
        description = 'training' if is_training else 'inference'
        total = len(calibration.LAYERS) * len(calibration.BATCHES) * len(calibration.KERNEL_NUMS)
        for case in track(calibration.cases(is_training), description, total):
            measurements.append((case.shape, calibration.measure(case, args.rounds)))
    costs = dict(quantities=list(calibration.QUANTITIES), milliseconds=calibration.fit(measurements))
    partial = args.calibrate.with_name(args.calibrate.name + '.partial')
    partial.write_text(json.dumps(costs, indent=1) + '\n', encoding='utf-8')
    partial.replace(args.calibrate)
    print(f'written: {args.calibrate}')


if __name__ == '__main__':
    main()

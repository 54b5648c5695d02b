#!/usr/bin/env python3
"""Write scikit-learn's 1797 scans of handwritten digits as pictures, a folder a class, to train a classifier on.

    OUT/train/zero/0000.png ...    OUT/val/zero/0010.png ...
"""
from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from make_digits_coco import THINGS, split_samples
from sklearn.datasets import load_digits

SEED = 0  # of the split


def write_pictures(folder: Path) -> dict[str, int]:
    """Write both splits below ``folder``; returns the number of pictures of each."""
    digits = load_digits()
    scans = np.round(digits.images * (255 / 16)).astype(np.uint8)
    splits = split_samples(digits.target, SEED)
    for split, samples in splits.items():
        for sample in samples.tolist():
            path = folder / split / THINGS[digits.target[sample]] / f'{sample:04}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), scans[sample])
    return {split: len(samples) for split, samples in splits.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to make')
    out = parser.parse_args(argv).out.resolve()
    if out.exists():
        parser.error(f'{out} exists: name another folder, or remove it')
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}-', dir=out.parent) as work:
        counts = write_pictures(Path(work, 'new'))
        os.rename(Path(work, 'new'), out)
    print(f'{out}: {counts["train"]} pictures to train on, {counts["val"]} to validate on')


if __name__ == '__main__':
    main()

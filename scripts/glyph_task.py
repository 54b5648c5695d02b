"""The pictures that tools/dataset_converters/glyphs.py draws, as a task for a network that is trained in memory."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmpretrain.structures import DataSample
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from tqdm import tqdm

MEAN, STD = 0.124, 0.305  # of the pixels of docs/glyph_fonts.json's train families, from 0 to 1
REMEDY = 'write it by `python tools/dataset_converters/glyphs.py data/glyphs --like docs/glyph_fonts.json` ' \
         '(docs/glyphs.md says how to install the fonts) and name it by --data'


class Glyphs(NamedTuple):
    """The characters of some families."""

    images: Tensor  # uint8[families, classes, height, width]
    families: tuple[str, ...]
    classes: tuple[str, ...]

    def every_other_class(self, first: int) -> Glyphs:
        """Half of the classes, from the first (0) or the second (1) on."""
        return self._replace(images=self.images[:, first::2], classes=self.classes[first::2])


def load_glyphs(folder: Path) -> dict[str, Glyphs]:
    """The splits 'train' and 'val'.

    Raises:
        ValueError: the folder is not there, or not complete, or a picture cannot be read.
    """
    splits = {}
    for split in ('train', 'val'):
        classes = sorted(path.name for path in (folder / split).glob('*') if path.is_dir())
        if len(classes) < 2:
            raise ValueError(f'{folder} holds no data set of glyphs, as {folder / split} has no folders of classes: '
                             f'{REMEDY}')
        families = sorted(path.stem for path in (folder / split / classes[0]).glob('*.png'))
        for name in classes:
            if not families or families != sorted(path.stem for path in (folder / split / name).glob('*.png')):
                raise ValueError(f'{folder / split} is not complete: {name} has not the same families as {classes[0]}. '
                                 f'Remove {folder} and {REMEDY}')
        images = [[_read(folder / split / name / f'{family}.png') for name in classes]
                  for family in tqdm(families, split, leave=False, disable=None)]
        if len({image.shape for row in images for image in row}) > 1:
            raise ValueError(f'{folder / split} has pictures of several sizes. Remove {folder} and {REMEDY}')
        splits[split] = Glyphs(torch.stack([torch.stack(row) for row in images]), tuple(families), tuple(classes))
    if splits['train'].classes != splits['val'].classes:
        raise ValueError(f'{folder} has other classes in train than in val. Remove it and {REMEDY}')
    return splits


def _read(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert('L')))
    except OSError as error:
        raise ValueError(f'{path} cannot be read ({error}). Remove the folder of the data set and {REMEDY}') from error


def digest(splits: dict[str, Glyphs]) -> str:
    """A number by which one data set can be told from another: the same for the same families and pictures."""
    found = hashlib.sha256()
    for name, glyphs in sorted(splits.items()):
        found.update(repr((name, glyphs.families, glyphs.classes)).encode())
        found.update(glyphs.images.numpy().tobytes())
    return found.hexdigest()[:16]


def as_inputs(images: Tensor, scale: float) -> Tensor:
    """What a network sees, Tensor[n, 1, scale · height, scale · width], of pictures uint8[n, height, width]."""
    inputs = (images[:, None].float() / 255 - MEAN) / STD
    return inputs if scale == 1 else F.interpolate(inputs, scale_factor=scale, mode='bilinear', align_corners=False)


class _Batches(Dataset):

    def __init__(self, glyphs: Glyphs, scale: float) -> None:
        self.images, self.classes, self.scale = glyphs.images.flatten(0, 1), len(glyphs.classes), scale

    def __getitem__(self, indices: Sequence[int]) -> dict:
        indices = torch.tensor(indices)
        # one sample holds the labels of all: the head takes those of the samples one after the other
        return dict(inputs=as_inputs(self.images[indices], self.scale),
                    data_samples=[DataSample().set_gt_label(indices % self.classes)])


def batches(glyphs: Glyphs, steps: int, batch: int, seed: int, scale: float = 1) -> DataLoader:
    """In each epoch, so many batches of other pictures, no picture twice.

    Raises:
        ValueError: there are fewer pictures than that.
    """
    count = len(glyphs.families) * len(glyphs.classes)
    if steps * batch > count:
        raise ValueError(f'an epoch of {steps} batches of {batch} needs {steps * batch} pictures, but there are '
                         f'{count}: draw more families (docs/glyphs.md)')
    order = RandomSampler(range(count), num_samples=steps * batch, generator=torch.Generator().manual_seed(seed))
    return DataLoader(_Batches(glyphs, scale), sampler=BatchSampler(order, batch, drop_last=True), batch_size=None)

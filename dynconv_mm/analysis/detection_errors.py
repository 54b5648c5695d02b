"""What a detector got wrong in images: objects that it missed, took for another class, or that are none."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

IOU = 0.5  # least overlap of a box that counts as found


class Matching(NamedTuple):
    """What was found in an image, held against what is annotated."""

    annotated: np.ndarray  # labels, int[m]
    found: np.ndarray  # labels, int[n]
    partner: np.ndarray  # int[n]: the annotation that each box lies on, or -1

    @property
    def is_right(self) -> np.ndarray:
        """bool[n]: on an annotation, and of its class."""
        return self.is_on_object & (self.found == self._class_there())

    @property
    def is_other_class(self) -> np.ndarray:
        """bool[n]: on an annotation of another class."""
        return self.is_on_object & (self.found != self._class_there())

    @property
    def is_on_object(self) -> np.ndarray:
        """bool[n]: on an annotation; the others are false."""
        return self.partner >= 0

    @property
    def is_missed(self) -> np.ndarray:
        """bool[m]: annotations on which no box lies."""
        return ~np.isin(np.arange(len(self.annotated)), self.partner)

    @property
    def errors(self) -> int:
        """How many annotations were missed, and boxes are false or of another class."""
        return int(self.is_missed.sum() + (~self.is_right).sum())

    def summary(self) -> str:
        """The errors in words."""
        counts = {'missed': self.is_missed.sum(), 'of another class': self.is_other_class.sum(),
                  'false': (~self.is_on_object).sum()}
        return ', '.join(f'{count} {name}' for name, count in counts.items() if count) or 'all right'

    def _class_there(self) -> np.ndarray:
        return np.where(self.is_on_object, np.append(self.annotated, -1)[self.partner], -1)


def match(annotated_boxes: Tensor, annotated_labels: Tensor, boxes: Tensor, labels: Tensor,
          scores: Tensor) -> Matching:
    """Give each annotation the box with the best score that overlaps it by an IoU of at least :data:`IOU`: first one of
    its own class, as COCO counts, and what is left then one of any class.

    Args:
        annotated_boxes (Tensor[m, 4]), boxes (Tensor[n, 4]): left, top, right, bottom.
        annotated_labels (Tensor[m]), labels (Tensor[n]): classes.
        scores (Tensor[n]): of the boxes.

    Returns:
        Matching
    """
    from torchvision.ops import box_iou
    overlaps = box_iou(boxes.double(), annotated_boxes.double()).numpy()
    annotated, found = annotated_labels.numpy(), labels.numpy()
    partner = np.full(len(found), -1)
    same_class = found[:, None] == annotated[None]
    for allowed in (same_class, ~same_class):
        for index in scores.argsort(descending=True, stable=True).tolist():
            free = allowed[index] & ~np.isin(np.arange(len(annotated)), partner) & (overlaps[index] >= IOU)
            if partner[index] < 0 and free.any():
                partner[index] = np.where(free, overlaps[index], -1).argmax()
    return Matching(annotated, found, partner)


def confusion(matchings: list[Matching], classes: int) -> np.ndarray:
    """How often an object of a class, by rows, was found as one of another, by columns, ``int[classes + 1,
    classes + 1]``. The last row is of what is no object, the last column of what was missed."""
    counts = np.zeros((classes + 1, classes + 1), int)
    for matching in matchings:
        there = matching._class_there()
        np.add.at(counts, (np.where(there < 0, classes, there), matching.found), 1)
        np.add.at(counts[:, classes], matching.annotated[matching.is_missed], 1)
    return counts

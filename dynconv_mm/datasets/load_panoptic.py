"""Panoptic annotations for mmdet's pipelines without ``panopticapi``, which is not on PyPI."""
from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ..compat.optional import import_optional
from .panoptic_png import read_panoptic_png

IGNORED = 255  # the semantic label of pixels that belong to no segment


@TRANSFORMS.register_module()
class LoadCocoPanopticAnnotations(BaseTransform):
    """Load the boxes, labels, masks and semantic map of an image of mmdet's ``CocoPanopticDataset``.

    In place of mmdet's ``LoadPanopticAnnotations``, with the same results.

    Args:
        with_bbox (bool): load the boxes of the things, ``gt_bboxes``. Default: True.
        with_label (bool): load their labels, ``gt_bboxes_labels``. Default: True.
        with_mask (bool): load their masks, ``gt_masks``, crowds left out. Default: True.
        with_seg (bool): load the semantic map ``gt_seg_map``, ``uint8[height, width]``: labels of things and
            stuff, crowds included, and 255 where no segment is. Default: True.
        box_type (str): mmdet's type of boxes. Default: 'hbox'.
        backend_args (dict, optional): mmengine's file backend. Default: None.

    Raises:
        ImportError: mmdet is not installed.
        ValueError: mmdet has no such ``box_type``; or from ``transform``, where the segments of the annotation file
            are not in the PNG, or the PNG is not of the image's size.
    """

    def __init__(self,
                 with_bbox: bool = True,
                 with_label: bool = True,
                 with_mask: bool = True,
                 with_seg: bool = True,
                 box_type: str = 'hbox',
                 backend_args: dict | None = None) -> None:
        transforms = import_optional('mmdet.datasets.transforms', type(self).__name__)
        box_types = import_optional('mmdet.structures.bbox.box_type', type(self).__name__).box_types
        if not isinstance(box_type, str) or box_type not in box_types:
            raise ValueError(f'box_type must be one of {sorted(box_types)}, but is {box_type!r}')
        self.load_instances = transforms.LoadAnnotations(with_bbox=with_bbox, with_label=with_label, box_type=box_type)
        self.with_mask = with_mask
        self.with_seg = with_seg
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add the annotations to ``results``; without a ``seg_map_path``, as in inference, no masks and no map."""
        results = self.load_instances(results)
        if results.get('seg_map_path') is not None and (self.with_mask or self.with_seg):
            self._load_segments(results)
        return results

    def _load_segments(self, results: dict) -> None:
        path = results['seg_map_path']
        ids = read_panoptic_png(path, self.backend_args)
        if ids.shape != tuple(results['ori_shape']):
            raise ValueError(f'{path} is of height and width {ids.shape}, but its image of {results["ori_shape"]}')
        semantic, masks = np.full(ids.shape, IGNORED, np.uint8), []
        for segment in results['segments_info']:
            if segment['category'] >= IGNORED:
                raise ValueError(f'the label {segment["category"]} of a segment of {path} does not fit into a map '
                                 f'of 8-bit labels, where {IGNORED} is ignored: use at most {IGNORED} categories')
            mask = ids == segment['id']
            if not mask.any():
                raise ValueError(f'{path} has no pixel of the segment {segment["id"]}, which the annotation file '
                                 'names: are they of the same data set?')
            semantic[mask] = segment['category']
            if segment['is_thing']:  # CocoPanopticDataset says no of a crowd
                masks.append(mask.astype(np.uint8))
        if self.with_mask:
            structures = import_optional('mmdet.structures.mask', type(self).__name__)
            results['gt_masks'] = structures.BitmapMasks(masks, *ids.shape)
        if self.with_seg:
            results['gt_seg_map'] = semantic

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(load_instances={self.load_instances}, with_mask={self.with_mask}, '
                f'with_seg={self.with_seg}, backend_args={self.backend_args})')

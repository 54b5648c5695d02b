"""COCO's panoptic PNGs: the colour of a pixel is the id of its segment, R + 256·G + 256²·B, and 0 is void."""
from __future__ import annotations

import cv2
import mmcv
import numpy as np
from mmengine.fileio import get

VOID = 0
MAX_SEGMENT_ID = 256**3 - 1


def read_panoptic_png(path: str, backend_args: dict | None = None) -> np.ndarray:
    """The segment of each pixel of a panoptic PNG.

    Args:
        path (str): the file.
        backend_args (dict, optional): mmengine's file backend, from which the file is read.

    Returns:
        np.ndarray: ``int32[height, width]``, segment ids.

    Raises:
        ValueError: the file is no PNG with 8-bit red, green and blue.
    """
    # 'unchanged', for 'color' would make a colour image of a map of semantic labels
    image = mmcv.imfrombytes(get(path, backend_args=backend_args), flag='unchanged', backend='cv2')
    if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'{path} is no panoptic PNG, which has 8-bit red, green and blue: point the prefix of the '
                         'segmentation maps to the folder of the panoptic ones')
    blue, green, red = np.moveaxis(image.astype(np.int32), 2, 0)
    return red + 256 * green + 256**2 * blue


def encode_panoptic_png(ids: np.ndarray) -> bytes:
    """A panoptic PNG.

    Args:
        ids (np.ndarray): ``int[height, width]``, segment ids in 0..``MAX_SEGMENT_ID``.

    Returns:
        bytes: the content of the file.

    Raises:
        ValueError: an id does not fit into a colour.
    """
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_SEGMENT_ID:
        raise ValueError(f'ids must be from 0 to {MAX_SEGMENT_ID}, but are from {ids.min()} to {ids.max()}')
    image = np.stack([ids // 256**2, ids // 256 % 256, ids % 256], axis=2).astype(np.uint8)  # blue, green, red
    return cv2.imencode('.png', image)[1].tobytes()

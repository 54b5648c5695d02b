"""Panoptic PNGs hold ids up to 256³ - 1, and nothing else passes for one."""
import cv2
import numpy as np
import pytest
from PIL import Image

from dynconv_mm.datasets.panoptic_png import MAX_SEGMENT_ID, encode_panoptic_png, read_panoptic_png

IDS = np.array([[0, 1, 255, 256], [65535, 65536, 8345037, MAX_SEGMENT_ID]])


def test_there_and_back(tmp_path):
    (tmp_path / 'ids.png').write_bytes(encode_panoptic_png(IDS))
    ids = read_panoptic_png(str(tmp_path / 'ids.png'))
    assert ids.dtype == np.int32 and np.array_equal(ids, IDS)


def test_colours_are_those_of_coco(tmp_path):
    """R + 256·G + 256²·B, read by another library."""
    (tmp_path / 'ids.png').write_bytes(encode_panoptic_png(IDS))
    colours = np.asarray(Image.open(tmp_path / 'ids.png')).astype(int)
    assert np.array_equal(colours @ [1, 256, 65536], IDS)


@pytest.mark.parametrize('ids', [[[-1, 0]], [[0, MAX_SEGMENT_ID + 1]]])
def test_ids_that_do_not_fit(ids):
    with pytest.raises(ValueError, match='ids must be from 0 to 16777215, but are from'):
        encode_panoptic_png(np.array(ids))


@pytest.mark.parametrize('image', [
    np.zeros((3, 4), np.uint8),
    np.zeros((3, 4, 4), np.uint8),
    np.zeros((3, 4, 3), np.uint16),
], ids=['grey', 'alpha', '16-bit'])
def test_other_images(image, tmp_path):
    cv2.imwrite(str(tmp_path / 'other.png'), image)
    with pytest.raises(ValueError, match='other.png is no panoptic PNG'):
        read_panoptic_png(str(tmp_path / 'other.png'))


def test_no_image(tmp_path):
    (tmp_path / 'text.png').write_text('text')
    with pytest.raises(ValueError, match='text.png is no panoptic PNG'):
        read_panoptic_png(str(tmp_path / 'text.png'))

#!/usr/bin/env python3
"""Compose a small COCO data set: handwritten digits on photographs, with instance, panoptic and semantic labels.

Everything comes with scikit-learn: its 1797 scans of digits are the objects, and its two photographs are the
ground they lie on. No digit and no part of a photograph is in both splits.

    OUT/train/000001.jpg ...                     OUT/val/...
    OUT/annotations/instances_train.json         OUT/annotations/instances_val.json
    OUT/annotations/panoptic_train.json          OUT/annotations/panoptic_val.json
    OUT/annotations/panoptic_train/000001.png    OUT/annotations/panoptic_val/...
    OUT/stuffthingmaps/train/000001.png          OUT/stuffthingmaps/val/...
    OUT/digits_coco.json                         the options it was made with
"""
from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.datasets import load_digits, load_sample_image
from sklearn.model_selection import train_test_split
from tqdm import tqdm

MARKER = 'digits_coco.json'
FORMAT = 2  # count up when the same options would give other files
VAL_DIGITS = 0.2
MASK_ALPHA = 0.35  # ink at least this opaque belongs to the mask
MAX_OVERLAP = 0.25  # of two boxes, as a part of the smaller one: their IoU stays below 0.15
MIN_VISIBLE = 0.6  # of a digit's mask, under the digits that lie on it
CONTRAST = 100  # grey levels between ink and ground, where a drawn colour reaches them
PLACE_TRIES = 100
STUFF_SEGMENT = 1 << 23  # + category id: segment ids of stuff; those of things are their annotation ids

THINGS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SKY, BUILDING, PETAL, FOLIAGE = range(11, 15)
STUFF = {SKY: 'sky', BUILDING: 'building', PETAL: 'petal', FOLIAGE: 'foliage'}
THING_CATEGORIES = [{'id': i, 'name': name, 'supercategory': 'digit'} for i, name in enumerate(THINGS, 1)]
STUFF_CATEGORIES = [{'id': i, 'name': name, 'supercategory': 'photograph'} for i, name in STUFF.items()]
PANOPTIC_CATEGORIES = [{**category, 'isthing': int(category['id'] <= len(THINGS))}
                       for category in THING_CATEGORIES + STUFF_CATEGORIES]
HEADER = {
    'info': {'version': str(FORMAT),
             'description': 'Handwritten digits (UCI, 8x8, through scikit-learn) on crops of the photographs '
                            'china.jpg by danielbuechele and flower.jpg by vultilion (Flickr)'},
    'licenses': [{'id': 1, 'name': 'Creative Commons Attribution 2.0 (the photographs)',
                  'url': 'https://creativecommons.org/licenses/by/2.0/'}],
}

# Rows and columns of each 427x640 photograph that a split is cropped from; every kind of stuff is in both.
REGIONS = {
    'train': {'china.jpg': np.s_[:, 192:], 'flower.jpg': np.s_[:298, :]},
    'val': {'china.jpg': np.s_[:, :192], 'flower.jpg': np.s_[298:, :]},
}
# Outline of the pagoda in china.jpg, drawn by hand: its colours do not tell it from the sky and the trees.
PAGODA = (
    (195, 31), (215, 31), (217, 56), (240, 84), (290, 106), (321, 122), (298, 140), (297, 161), (330, 171),
    (322, 187), (320, 233), (352, 254), (340, 272), (342, 302), (374, 336), (340, 366), (322, 380),
    (326, 426), (292, 426), (284, 394), (216, 388), (200, 362), (172, 360), (150, 340), (74, 345), (82, 290),
    (62, 270), (84, 250), (97, 240), (97, 192), (84, 184), (88, 167), (121, 160), (120, 139), (94, 128),
    (98, 106), (150, 94), (184, 70), (195, 54),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What decides every byte of a data set."""

    train: int = 2400
    val: int = 300
    width: int = 160
    height: int = 128
    seed: int = 0
    objects_min: int = 3
    objects_max: int = 8


@dataclass(frozen=True)
class Ground:
    """A piece of photograph: its pixels ``uint8[H, W, 3]`` and their stuff categories ``uint8[H, W]``."""

    photo: np.ndarray
    stuff: np.ndarray


@dataclass(frozen=True)
class Scene:
    """An image ``uint8[H, W, 3]`` of a ground with digits on it.

    ``owner``, ``uint8[H, W]``, is k where ``samples[k - 1]`` is the visible digit and 0 where none is.
    """

    image: np.ndarray
    stuff: np.ndarray
    owner: np.ndarray
    samples: list[int]


class CrowdedError(Exception):
    """The digits asked for do not fit into an image."""


def label_stuff(name: str, photo: np.ndarray) -> np.ndarray:
    """Stuff categories ``uint8[H, W]`` of a whole photograph ``uint8[H, W, 3]``."""
    # What is not leaves is bright in one channel: sky, with the lake that mirrors it, in blue; petals in red.
    channel, bright = {'china.jpg': (2, SKY), 'flower.jpg': (0, PETAL)}[name]
    smooth = cv2.medianBlur(np.ascontiguousarray(photo[..., channel]), 15)
    stuff = np.where(smooth > 140, bright, FOLIAGE).astype(np.uint8)
    if name == 'china.jpg':
        cv2.fillPoly(stuff, [np.array(PAGODA, np.int32)], BUILDING)
    return stuff


def load_grounds(split: str, width: int, height: int) -> list[Ground]:
    """The regions of the photographs for a split, enlarged where they are smaller than an image."""
    grounds = []
    for name, region in REGIONS[split].items():
        whole = load_sample_image(name)
        photo, stuff = whole[region], label_stuff(name, whole)[region]
        rows, columns = stuff.shape
        scale = max(1, height / rows, width / columns)
        size = (round(columns * scale), round(rows * scale))
        photo = cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC)
        grounds.append(Ground(photo, cv2.resize(stuff, size, interpolation=cv2.INTER_NEAREST)))
    return grounds


def random_window(outer: tuple[int, ...], inner: tuple[int, ...], rng: np.random.Generator) -> tuple:
    """Index of a window of shape ``inner`` at a random place in an array of shape ``outer``."""
    starts = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(outer, inner)]
    return tuple(slice(start, start + part) for start, part in zip(starts, inner))


def split_samples(target: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Indices of the samples of each split; ``target``, ``int[N]``, has every class in both."""
    train, val = train_test_split(np.arange(len(target)), test_size=VAL_DIGITS, stratify=target,
                                  random_state=seed)
    return {'train': train, 'val': val}


def draw_digit(digit: np.ndarray, height: int) -> np.ndarray:
    """Opacity of the ink, ``float32[h, w]`` in 0..1, of a scan ``[8, 8]`` in 0..16 made ``height`` high."""
    rim = np.pad(digit / 16, 1).astype(np.float32)  # lets the ink fade out on every side
    side = round(height * rim.shape[0] / digit.shape[0])
    alpha = cv2.resize(rim, (side, side), interpolation=cv2.INTER_CUBIC)
    alpha = np.clip(2 * alpha - 0.4, 0, 1)  # steeper than the scan: strokes with a clear edge
    left, top, columns, rows = cv2.boundingRect((alpha > 0).astype(np.uint8))
    return alpha[top:top + rows, left:left + columns]


def ink_colour(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random colour, ``[3]``, that stands out from the pixels ``[N, 3]`` it is to cover."""
    grey = np.array([0.299, 0.587, 0.114])
    colours = rng.integers(0, 256, (32, 3))
    contrast = np.abs((colours - ground.mean(axis=0)) @ grey)
    return colours[np.argmax(np.minimum(contrast, CONTRAST))]


def overlap(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    """What two XYWH boxes share, as a part of the smaller one."""
    x, y, w, h = box
    other_x, other_y, other_w, other_h = other
    shared_w = max(min(x + w, other_x + other_w) - max(x, other_x), 0)
    shared_h = max(min(y + h, other_y + other_h) - max(y, other_y), 0)
    return shared_w * shared_h / min(w * h, other_w * other_h)


def compose(ground: Ground, digits: np.ndarray, pool: np.ndarray, count: int,
            rng: np.random.Generator) -> Scene:
    """Lay random digits on a ground, each over those before it; fewer than ``count`` where no room is left.

    Args:
        ground: Of the size of the image.
        digits: All samples, ``[N, 8, 8]``.
        pool: Indices of the samples to draw from, ``int[M]``.
    """
    image, owner = ground.photo.copy(), np.zeros(ground.stuff.shape, np.uint8)
    low, high = max(12, min(owner.shape) * 3 // 16), max(16, min(owner.shape) * 7 // 16)
    samples, boxes, areas = [], [], []
    for _ in range(PLACE_TRIES * count):
        sample = int(rng.choice(pool))
        alpha = draw_digit(digits[sample], int(rng.integers(low, high + 1)))
        window = random_window(owner.shape, alpha.shape, rng)
        mask = np.zeros_like(owner)
        mask[window] = alpha >= MASK_ALPHA
        box = cv2.boundingRect(mask)
        if any(overlap(box, other) > MAX_OVERLAP for other in boxes):
            continue
        after = np.where(mask, len(samples) + 1, owner).astype(np.uint8)
        visible = np.bincount(after.ravel())[1:-1]
        if (visible < MIN_VISIBLE * np.array(areas)).any():
            continue
        ink = alpha[..., None]
        colour = ink_colour(image[mask > 0], rng)
        image[window] = np.rint((1 - ink) * image[window] + ink * colour)
        owner = after
        samples.append(sample)
        boxes.append(box)
        areas.append(np.count_nonzero(mask))
        if len(samples) == count:
            break
    return Scene(image, ground.stuff, owner, samples)


def encode_mask(mask: np.ndarray) -> list[list[int]] | dict:
    """COCO segmentation of ``uint8[H, W]``: polygons where they keep every pixel, else compressed RLE."""
    # A contour runs through pixel centres; four times as large, it rounds to the corners of the pixels.
    large = cv2.resize(mask, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [np.rint((contour + 0.5) / 4).astype(int).ravel().tolist() for contour in contours]
    decoded = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape)))
    if np.array_equal(decoded, mask):
        return polygons
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {'size': list(mask.shape), 'counts': encoded['counts'].decode('ascii')}


def measure(mask: np.ndarray) -> dict:
    """What the annotations of things and of stuff say alike about a mask ``uint8[H, W]``."""
    return {'area': int(np.count_nonzero(mask)), 'bbox': list(cv2.boundingRect(mask)), 'iscrowd': 0}


def annotate(scene: Scene, target: np.ndarray, first_id: int) -> tuple[list[dict], list[dict], np.ndarray]:
    """Labels of a scene.

    Args:
        target: Digit of each sample, ``int[N]``.
        first_id: Annotation id of the first digit.

    Returns:
        The instance annotations, the panoptic segments and the segment of each pixel, ``int64[H, W]``.
    """
    instances, segments = [], []
    ids = STUFF_SEGMENT + scene.stuff.astype(np.int64)
    for index, sample in enumerate(scene.samples):
        mask = (scene.owner == index + 1).astype(np.uint8)
        segment = {'id': first_id + index, 'category_id': int(target[sample]) + 1, **measure(mask)}
        ids[mask > 0] = segment['id']
        segments.append(segment)
        instances.append({**segment, 'segmentation': encode_mask(mask), 'digit_sample': sample})
    for stuff_id in np.unique(ids[scene.owner == 0]).tolist():
        mask = (ids == stuff_id).astype(np.uint8)
        segments.append({'id': stuff_id, 'category_id': stuff_id - STUFF_SEGMENT, **measure(mask)})
    return instances, segments, ids


def semantic_map(scene: Scene, target: np.ndarray) -> np.ndarray:
    """Semantic labels ``uint8[H, W]`` as in COCO's ``stuffthingmaps``: category ids less one, things over stuff."""
    labels = scene.stuff - 1
    for number, sample in enumerate(scene.samples, 1):
        labels[scene.owner == number] = target[sample]
    return labels


def scenes(split: str, options: Options, digits: np.ndarray, pool: np.ndarray) -> Iterator[Scene]:
    """The scenes of a split, each from a generator of its own."""
    size = (options.height, options.width)
    grounds = load_grounds(split, options.width, options.height)
    for number in range(getattr(options, split)):
        rng = np.random.default_rng([options.seed, split == 'val', number])
        ground = grounds[rng.integers(len(grounds))]
        window = random_window(ground.stuff.shape, size, rng)
        count = int(rng.integers(options.objects_min, options.objects_max + 1))
        scene = compose(Ground(ground.photo[window], ground.stuff[window]), digits, pool, count, rng)
        if len(scene.samples) < options.objects_min:
            raise CrowdedError(f'{options.objects_min} digits do not fit into an image of '
                               f'{options.width}x{options.height}: lower --objects-min or enlarge the image')
        yield scene


def save_json(path: Path, content: dict) -> None:
    """Write JSON on one line: annotations are long lists of numbers."""
    path.write_text(json.dumps(content, separators=(',', ':')) + '\n')


def write_split(root: Path, split: str, options: Options, advance: Callable[[], object]) -> None:
    """Write the images and annotations of a split; ``advance`` is called after each image."""
    digits = load_digits()
    pool = split_samples(digits.target, options.seed)[split]
    image_folder, panoptic_folder = root / split, root / 'annotations' / f'panoptic_{split}'
    semantic_folder = root / 'stuffthingmaps' / split
    for folder in (image_folder, panoptic_folder, semantic_folder):
        folder.mkdir(parents=True)
    images, instances, panoptics = [], [], []
    for image_id, scene in enumerate(scenes(split, options, digits.images, pool), 1):
        things, segments, ids = annotate(scene, digits.target, len(instances) + 1)
        image_name, map_name = f'{image_id:06d}.jpg', f'{image_id:06d}.png'
        Image.fromarray(scene.image).save(image_folder / image_name, quality=95)
        colours = (ids[..., None] >> np.array([0, 8, 16]) & 255).astype(np.uint8)
        Image.fromarray(colours).save(panoptic_folder / map_name)
        Image.fromarray(semantic_map(scene, digits.target)).save(semantic_folder / map_name)
        images.append({'id': image_id, 'file_name': image_name, 'width': options.width,
                       'height': options.height, 'license': 1})
        instances += [{**thing, 'image_id': image_id} for thing in things]
        panoptics.append({'image_id': image_id, 'file_name': map_name, 'segments_info': segments})
        advance()
    for kind, entries, categories in (('instances', instances, THING_CATEGORIES),
                                      ('panoptic', panoptics, PANOPTIC_CATEGORIES)):
        save_json(root / 'annotations' / f'{kind}_{split}.json',
                  {**HEADER, 'images': images, 'annotations': entries, 'categories': categories})


def marker(options: Options) -> dict:
    """What the marker file of a data set holds."""
    return {'format': FORMAT, 'options': asdict(options)}


def write_dataset(root: Path, options: Options) -> None:
    """Write a data set into the folder ``root``, which is new; its marker file comes last."""
    root.mkdir()
    # disable=None: no bar where stderr is not a terminal
    with tqdm(total=options.train + options.val, unit='image', disable=None) as bar:
        for split in REGIONS:
            write_split(root, split, options, bar.update)
    save_json(root / MARKER, marker(options))


def read_marker(root: Path) -> dict | None:
    """The marker of the data set in ``root``; None where this tool made none."""
    try:
        found = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() == {'format', 'options'} else None


def refusal(out: Path, force: bool) -> str | None:
    """Why the absolute path ``out`` may not become a data set; None where it may."""
    home = Path(os.path.expanduser('~')).resolve()
    if Path.cwd().is_relative_to(out) or home.is_relative_to(out) or out.is_mount():
        return f'{out} is or holds the home or the working folder, or is a mount point: name a folder in it'
    if out.exists() and not out.is_dir():
        return f'{out} is not a folder: choose another path'
    if force or not out.exists() or not any(out.iterdir()):
        return None
    content = ('a data set made with other options or by another version' if read_marker(out)
               else 'files not made by this tool')
    return f'{out} holds {content}: choose another folder, or pass --force to replace all of it'


def publish(new: Path, out: Path, aside: Path) -> None:
    """Move the folder ``new`` to ``out``; what was there goes to ``aside``, and back again on failure."""
    try:
        if out.exists():
            out.rename(aside)
        new.rename(out)
    except BaseException:
        if aside.exists() and not out.exists():
            aside.rename(out)
        raise


def build(out: Path, options: Options, force: bool) -> None:
    """Write a data set beside ``out`` and move it there once it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'{out.name}.partial-{os.getpid()}-', dir=out.parent) as work:
        write_dataset(Path(work) / 'new', options)
        if out.exists() and not force:
            out.rmdir()  # it was empty; fails if somebody has filled it since
        publish(Path(work) / 'new', out, Path(work) / 'old')


def integer(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: integers from ``low`` to ``high``."""
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value not in range(low, high + 1):
            raise argparse.ArgumentTypeError(f'must be an integer from {low} to {high}, not {text!r}')
        return value
    return parse


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to make')
    for name, (low, high, about) in {
        'train': (1, 100_000, 'images to train on'),
        'val': (1, 100_000, 'images to validate on'),
        'width': (32, 1024, 'of the images, in pixels'),
        'height': (32, 1024, 'of the images, in pixels'),
        'seed': (0, 2**32 - 1, 'of everything random'),
        'objects_min': (1, 20, 'digits in an image'),
        'objects_max': (1, 20, 'digits in an image, where they find room'),
    }.items():
        parser.add_argument('--' + name.replace('_', '-'), type=integer(low, high), metavar='N',
                            default=getattr(Options, name),
                            help=f'{about} (%(default)s; {low} to {high})')
    parser.add_argument('--force', action='store_true', help='replace whatever OUT holds')
    arguments = vars(parser.parse_args(argv))
    out, force = arguments.pop('out').expanduser().resolve(), arguments.pop('force')
    options = Options(**arguments)
    if options.objects_min > options.objects_max:
        parser.error(f'argument --objects-min: must be from 1 to --objects-max, which is '
                     f'{options.objects_max}, not {options.objects_min}')
    try:
        if not force and read_marker(out) == marker(options):
            print(f'{out}: already there')
            return
        if reason := refusal(out, force):
            parser.error(reason)
        build(out, options, force)
    except (CrowdedError, OSError) as error:
        parser.exit(1, f'{parser.prog}: error: {error}\n')
    print(f'{out}: {options.train} images to train on, {options.val} to validate on')


if __name__ == '__main__':
    main()

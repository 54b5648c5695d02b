#!/usr/bin/env python3
"""Draw digits and letters with the fonts of this machine: pictures to classify, or words on photographs to detect.

A family is in one split alone, and so are all that begin with the same word: validation is by fonts never seen. Of
families that look alike, only one is taken. The same fonts, options and Pillow give the same bytes. Which fonts are
taken depends on all that are there; --like takes those of an earlier data set, whatever is installed beside them.

    OUT/train/upper_A/DejaVu Sans.png ...  OUT/val/...    32x32, white on black, a folder for each of 62 classes
    OUT/fonts.json                                        of every family: split, file, version, licence, package

With --words, in COCO's format, each character a box:

    OUT/train/000001.jpg ...               OUT/val/...
    OUT/annotations/instances_train.json   OUT/annotations/instances_val.json
    OUT/fonts.json
"""
from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import string
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fontTools.ttLib import TTFont
from make_digits_coco import (
    HEADER,
    REGIONS,
    ink_colour,
    integer,
    load_grounds,
    overlap,
    random_window,
    save_json,
)
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

logging.getLogger('fontTools').setLevel(logging.ERROR)  # it warns of flaws that are none here

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
CLASSES = [f'{kind}_{character}' for kind, characters in (
    ('digit', string.digits), ('upper', string.ascii_uppercase), ('lower', string.ascii_lowercase))
           for character in characters]
FOLDERS = ('/usr/share/fonts', '/usr/local/share/fonts', '~/.local/share/fonts', '~/.fonts')
SUFFIXES = ('.ttf', '.otf')
SIZE, MARGIN, OVERSAMPLING = 32, 2, 4  # of the pictures, in pixels; drawn that many times as large
LEAST_HEIGHT = SIZE / 4  # of the middle one of a family's glyphs: with long swashes, letters are too small to be read
LEAST_DIFFERENT = 36  # glyphs of a family: capitals for small letters are let pass, boxes for unknown ones are not
ALIKE = 0.05  # squared difference of two families' glyphs, relative to their own squares
LEAST_READABLE = 0.4  # of a family's glyphs: pictures, patterns and faint outlines in place of letters are not
LIKENESS_SIZE = 12  # of ink, stretched, when letters are compared
VAL_SHARE = 0.2  # of the families, or a little more
WIDTH, HEIGHT, WORDS, LENGTHS, HEIGHTS = 160, 128, (1, 4), (2, 6), (16, 32)  # of photographs and their words
PLACE_TRIES = 50


class Face(NamedTuple):
    """A font file."""

    path: Path
    family: str
    version: str
    licence: str
    plainness: tuple  # the smallest is the one to take of a family


class FontError(Exception):
    """Why a font or the fonts of the machine do not do."""


def read_face(path: Path) -> Face:
    """What a font file says of itself.

    Raises:
        FontError: it cannot be read, or has not all of the characters.
    """
    try:
        with TTFont(path, lazy=True) as font:
            names, cmap, style = font['name'], font.getBestCmap() or {}, font['OS/2']
            family = names.getBestFamilyName()
            version, licence, url = (' '.join((names.getDebugName(number) or '').split()) for number in (5, 13, 14))
            plainness = (abs(style.usWeightClass - 400), style.fsSelection & 1, abs(style.usWidthClass - 5), path.name)
    except Exception as error:  # damaged files raise whatever they happen to lead to
        raise FontError(f'cannot be read ({type(error).__name__}: {error})') from error
    missing = [character for character in CHARACTERS if ord(character) not in cmap]
    if missing:
        raise FontError(f'lacks {len(missing)} of the characters')
    named = any(letter.isalnum() for letter in family or '')  # some are called '.'
    return Face(path, family.replace('/', '-') if named else path.stem, version, url or licence, plainness)


def font_files(folders: list[Path]) -> list[Path]:
    """All in some folders.

    Raises:
        FontError: there are none.
    """
    files = sorted({path.resolve() for folder in folders for path in folder.rglob('*')
                    if path.suffix.lower() in SUFFIXES and path.is_file()})
    if not files:
        raise FontError(f'no font files ({", ".join(SUFFIXES)}) in {", ".join(map(str, folders))}: install some, as '
                        'docs/glyphs.md says, or name folders by --fonts')
    return files


def digest(path: Path) -> str:
    """By which a font file is known, as fonts.json has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_faces(folders: list[Path]) -> tuple[list[Face], list[str]]:
    """The plainest font of each family, by the families' names, and the files left out, with reasons.

    Raises:
        FontError: there are no font files.
    """
    faces: dict[str, Face] = {}
    left_out = []
    for path in tqdm(font_files(folders), 'fonts', disable=None):
        try:
            face = read_face(path)
        except FontError as error:
            left_out.append(f'{path}: {error}')
            continue
        if face.family not in faces or face.plainness < faces[face.family].plainness:
            faces[face.family] = face
    return [faces[family] for family in sorted(faces)], left_out


def load(path: Path, em: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), em, layout_engine=ImageFont.Layout.BASIC)


def ink_boxes(font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Left, top, right and bottom of each character's ink, from its origin on the base line, ``int[62, 4]``.

    Raises:
        FontError: a character has none.
    """
    boxes = []
    for character in CHARACTERS:
        mask, (x, y) = font.getmask2(character, 'L', anchor='ls')
        ink = mask.getbbox()
        if ink is None:
            raise FontError(f'draws nothing for {character}')
        boxes.append((ink[0] + x, ink[1] + y, ink[2] + x, ink[3] + y))
    return np.array(boxes)


def draw_glyphs(path: Path) -> np.ndarray:
    """The 62 characters of a font, ``uint8[62, SIZE, SIZE]``: each in the middle, all on one base line, and all as
    large as fits.

    Raises:
        FontError: it cannot be drawn, or not be read.
    """
    try:
        boxes = ink_boxes(load(path, 100))
        extent = max(boxes[:, 3].max() - boxes[:, 1].min(), (boxes[:, 2] - boxes[:, 0]).max())
        side = SIZE * OVERSAMPLING
        font = load(path, max(1, int(100 * (side - 2 * MARGIN * OVERSAMPLING) / extent)))
        boxes = ink_boxes(font)
    except OSError as error:
        raise FontError(f'cannot be drawn ({error})') from error
    base = (side - boxes[:, 3].max() - boxes[:, 1].min()) // 2
    glyphs = np.empty((len(CHARACTERS), SIZE, SIZE), np.uint8)
    for index, (character, (left, _, right, _)) in enumerate(zip(CHARACTERS, boxes)):
        image = Image.new('L', (side, side))
        ImageDraw.Draw(image).text(((side - left - right) // 2, base), character, 255, font, anchor='ls')
        glyphs[index] = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))
    if np.median(boxes[:, 3] - boxes[:, 1]) < LEAST_HEIGHT * OVERSAMPLING:
        raise FontError('has letters that are too small beside its largest')
    if len(np.unique(glyphs.reshape(len(glyphs), -1), axis=0)) < LEAST_DIFFERENT:
        raise FontError('draws many characters alike')
    return glyphs


def readable(glyphs: np.ndarray) -> np.ndarray:
    """The part of each family's glyphs that resemble the average of their own letter, small or capital, over all
    families more than those of others, ``float[families]``; 0 is an O, and 1 and l are an I.

    Args:
        glyphs (uint8[families, 62, SIZE, SIZE]): all of their glyphs.
    """
    images = (Image.fromarray(glyph) for family in glyphs for glyph in family)
    shape = (LIKENESS_SIZE, LIKENESS_SIZE)
    vectors = np.stack([np.asarray(image.resize(shape, Image.Resampling.BILINEAR, image.getbbox()), np.float32).ravel()
                        for image in images]).reshape(*glyphs.shape[:2], -1)
    vectors -= vectors.mean(2, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True) + 1e-6
    found = (vectors @ vectors.mean(0).T).argmax(2)
    letters = np.array([*CHARACTERS.lower().translate(str.maketrans('01l', 'oii'))])
    return (letters[found] == letters).mean(1)


def different(glyphs: np.ndarray) -> tuple[list[int], dict[int, int]]:
    """The indices of families to take, and of the others, which look like one of these.

    Args:
        glyphs (uint8[families, 62, SIZE, SIZE]): all of their glyphs.
    """
    small = glyphs.reshape(len(glyphs), len(CHARACTERS), SIZE // 2, 2, SIZE // 2, 2).mean((3, 5), np.float32)
    flat = small.reshape(len(glyphs), -1) / 255
    squares = (flat**2).sum(1)
    distances = squares[:, None] + squares - 2 * flat @ flat.T
    alike = distances < ALIKE * np.sqrt(np.outer(squares, squares))
    taken: list[int] = []
    twins = {}
    for index in range(len(flat)):
        found = [other for other in taken if alike[index, other]]
        if found:
            twins[index] = found[0]
        else:
            taken.append(index)
    return taken, twins


def split_families(families: list[str], seed: int) -> dict[str, list[str]]:
    """The families of 'train' and 'val'; those that begin with the same word stand together."""
    groups: dict[str, list[str]] = {}
    for family in families:
        groups.setdefault(family.split()[0].casefold(), []).append(family)
    names = sorted(groups)
    val: list[str] = []
    for index in np.random.default_rng([seed, 0]).permutation(len(names)):
        if len(val) < VAL_SHARE * len(families):
            val += groups[names[index]]
    return {'train': [family for family in families if family not in val], 'val': sorted(val)}


def select(folders: list[Path], least: int) -> tuple[list[Face], np.ndarray, list[str]]:
    """The families to draw with, their glyphs ``uint8[families, 62, SIZE, SIZE]``, and what was left out.

    Raises:
        FontError: there are fewer than ``least``.
    """
    faces, left_out = find_faces(folders)
    drawn, glyphs = [], []
    for face in tqdm(faces, 'families', disable=None):
        try:
            glyphs.append(draw_glyphs(face.path))
            drawn.append(face)
        except FontError as error:
            left_out.append(f'{face.path}: {error}')
    if drawn:
        parts = readable(np.stack(glyphs))
        left_out += [f'{face.path}: {part:.0%} of its characters look as others draw them'
                     for face, part in zip(drawn, parts) if part < LEAST_READABLE]
        kept = [index for index, part in enumerate(parts) if part >= LEAST_READABLE]
        drawn, glyphs = [drawn[index] for index in kept], [glyphs[index] for index in kept]
    if drawn:
        taken, twins = different(np.stack(glyphs))
        left_out += [f'{drawn[index].path}: looks like {drawn[other].family}' for index, other in twins.items()]
        drawn, glyphs = [drawn[index] for index in taken], [glyphs[index] for index in taken]
    if len(drawn) < max(least, 2):
        raise FontError(f'{len(drawn)} families have all characters, can be read and look different, of {len(faces)} '
                        f'found, but --families asks for {max(least, 2)}: install more, as docs/glyphs.md says, name '
                        'more folders by --fonts, or ask for fewer')
    return drawn, np.stack(glyphs), left_out


def read_record(file: Path) -> dict[str, dict[str, str]]:
    """What a data set's fonts.json says of each family.

    Raises:
        FontError: it is none.
    """
    try:
        fonts = json.loads(file.read_text(encoding='utf-8'))
        for family, font in fonts.items():
            if not all(isinstance(font[key], str) for key in ('split', 'file', 'sha256', 'package')):
                raise ValueError(f'of {family!r} not all that it says is text')
            if font['split'] not in ('train', 'val'):
                raise ValueError(f"{family!r} must be of 'train' or 'val', but is of {font['split']!r}")
            if not family.isprintable() or family.strip('. ') == '' or '/' in family or len(family.encode()) > 200:
                raise ValueError(f'{family!r} can be no name of a file')
        hashes = Counter(font['sha256'] for font in fonts.values())
        splits = Counter(font['split'] for font in fonts.values())
        if max(hashes.values(), default=0) > 1:
            raise ValueError('two families have the same font')
        if len(splits) < 2:
            raise ValueError('train or val has no families')
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FontError(f'{file} is no fonts.json of such a data set ({type(error).__name__}: {error})') from error
    return fonts


def select_like(file: Path, folders: list[Path]) -> tuple[list[Face], np.ndarray, dict[str, list[str]]]:
    """The very fonts of another data set's fonts.json, their glyphs as :func:`select` returns them, and its splits.

    Raises:
        FontError: the file is none, or a font is not there or cannot be drawn.
    """
    fonts = read_record(file)
    names = {font['file'] for font in fonts.values()}
    paths = {digest(path): path for path in font_files(folders) if path.name in names}
    missing = {family: font['package'] or font['file'] for family, font in fonts.items() if font['sha256'] not in paths}
    if missing:
        places, packages = ', '.join(map(str, folders)), ', '.join(sorted(set(missing.values())))
        raise FontError(f'{len(missing)} of the {len(fonts)} fonts of {file}, such as {next(iter(missing))}, are not '
                        f'in {places} in the versions that it names: install {packages}')
    faces, glyphs = [], []
    for family in tqdm(sorted(fonts), 'families', disable=None):
        path = paths[fonts[family]['sha256']]
        try:
            faces.append(read_face(path)._replace(family=family))
            glyphs.append(draw_glyphs(path))
        except FontError as error:
            raise FontError(f'{path}, the font of {family} in {file}, {error}') from error
    splits = {split: [family for family, font in fonts.items() if font['split'] == split] for split in ('train', 'val')}
    return faces, np.stack(glyphs), splits


def packages_of(paths: list[Path]) -> dict[Path, tuple[str, str, str]]:
    """Debian's package of each file, its version and its licences, as far as dpkg knows them."""
    if not paths or shutil.which('dpkg-query') is None:
        return {}
    owners = subprocess.run(['dpkg-query', '-S', *map(str, paths)], text=True, capture_output=True).stdout
    package_of = dict(reversed(line.split(': ', 1)) for line in owners.splitlines() if ': ' in line)
    names = sorted(set(package_of.values()))
    shown = subprocess.run(['dpkg-query', '-W', '-f', '${Package} ${Version}\n', *names], text=True,
                           capture_output=True).stdout if names else ''
    versions = dict(line.split() for line in shown.splitlines())
    licences = {}
    for name in names:
        file = Path('/usr/share/doc', name, 'copyright')
        text = file.read_text(encoding='utf-8', errors='replace') if file.is_file() else ''
        found = {line.partition(':')[2].strip() for line in text.splitlines() if line.startswith('License:')}
        licences[name] = ', '.join(sorted(found - {''}))
    return {path: (name, versions.get(name, ''), licences[name]) for path in paths
            if (name := package_of.get(str(path)))}


def describe(faces: list[Face], splits: dict[str, list[str]]) -> dict[str, dict]:
    """What fonts.json says, by family."""
    packages = packages_of([face.path for face in faces])
    split_of = {family: split for split, families in splits.items() for family in families}
    found = {}
    for face in faces:
        package, package_version, licences = packages.get(face.path, ('', '', ''))
        found[face.family] = {
            'split': split_of[face.family], 'file': face.path.name,
            'sha256': digest(face.path), 'version': face.version,
            'licence': licences or face.licence, 'package': package, 'package_version': package_version}
    return found


def write_pictures(root: Path, faces: list[Face], glyphs: np.ndarray, splits: dict[str, list[str]]) -> dict[str, int]:
    """A folder for each split and class; returns the number of pictures of each split."""
    numbers = {face.family: index for index, face in enumerate(faces)}
    for split, families in splits.items():
        for index, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for family in families:
                Image.fromarray(glyphs[numbers[family], index]).save(folder / f'{family}.png')
    return {split: len(families) * len(CLASSES) for split, families in splits.items()}


class Word(NamedTuple):
    """Opacity of the ink ``float[H, W]``, and of each character its index and box, XYWH from the word's corner."""

    alpha: np.ndarray
    characters: list[tuple[int, tuple[int, ...]]]


def draw_word(path: Path, indices: list[int], height: int) -> Word:
    """Characters in a row; ``height`` is from the highest point of the font's characters to the lowest."""
    boxes = ink_boxes(load(path, 100))
    font = load(path, max(4, round(100 * height / (boxes[:, 3].max() - boxes[:, 1].min()))))
    boxes, x, places = ink_boxes(font)[indices], 0, []
    for index, (left, _, _, _) in zip(indices, boxes):
        x = max(x, -left) if not places else x
        places.append(x)
        x += max(1, round(font.getlength(CHARACTERS[index])))
    boxes = boxes + np.array(places)[:, None] * [1, 0, 1, 0]
    corner = boxes.min(0)[:2]
    boxes -= np.tile(corner, 2)
    image = Image.new('L', tuple(int(side) for side in boxes.max(0)[2:]))
    for index, place in zip(indices, places):
        ImageDraw.Draw(image).text((int(place - corner[0]), int(-corner[1])), CHARACTERS[index], 255, font, anchor='ls')
    found = [(index, (int(left), int(top), int(right - left), int(bottom - top)))
             for index, (left, top, right, bottom) in zip(indices, boxes)]
    return Word(np.asarray(image) / 255, found)


def scenes(split: str, count: int, paths: list[Path], seed: int) -> Iterator[tuple[np.ndarray, list[dict]]]:
    """Photographs ``uint8[H, W, 3]`` with words, and of each character its category and box."""
    grounds = load_grounds(split, WIDTH, HEIGHT)
    for number in range(count):
        rng = np.random.default_rng([seed, 1 + (split == 'val'), number])
        ground = grounds[rng.integers(len(grounds))].photo
        image = ground[random_window(ground.shape[:2], (HEIGHT, WIDTH), rng)].copy()
        boxes: list[tuple[int, ...]] = []
        found = []
        words = int(rng.integers(WORDS[0], WORDS[1] + 1))
        for _ in range(PLACE_TRIES):
            length = int(rng.integers(LENGTHS[0], LENGTHS[1] + 1))
            word = draw_word(paths[rng.integers(len(paths))], rng.integers(len(CHARACTERS), size=length).tolist(),
                             int(rng.integers(HEIGHTS[0], HEIGHTS[1] + 1)))
            if word.alpha.shape[0] > HEIGHT or word.alpha.shape[1] > WIDTH:
                continue
            window = random_window((HEIGHT, WIDTH), word.alpha.shape, rng)
            top, left = (part.start for part in window)
            box = (left, top, word.alpha.shape[1], word.alpha.shape[0])
            if any(overlap(box, other) > 0 for other in boxes):
                continue
            colour, ink = ink_colour(image[window][word.alpha > 0.5], rng), word.alpha[..., None]
            image[window] = np.rint((1 - ink) * image[window] + ink * colour)
            boxes.append(box)
            found += [{'category_id': index + 1, 'bbox': [x + left, y + top, w, h], 'area': w * h, 'iscrowd': 0}
                      for index, (x, y, w, h) in word.characters]
            if len(boxes) == words:
                break
        yield image, found


def write_words(root: Path, faces: list[Face], splits: dict[str, list[str]], counts: dict[str, int],
                seed: int) -> dict[str, int]:
    """Photographs with words; returns the number of images of each split."""
    paths = {face.family: face.path for face in faces}
    (root / 'annotations').mkdir(parents=True)
    categories = [{'id': number, 'name': name, 'supercategory': name.partition('_')[0]}
                  for number, name in enumerate(CLASSES, 1)]
    info = {**HEADER['info'], 'version': '1', 'description': 'Words in the fonts of fonts.json on crops of the '
            'photographs china.jpg by danielbuechele and flower.jpg by vultilion (Flickr)'}
    for split in REGIONS:
        (root / split).mkdir()
        images: list[dict] = []
        annotations: list[dict] = []
        for image, found in tqdm(scenes(split, counts[split], [paths[family] for family in splits[split]], seed), split,
                                 counts[split], disable=None):
            name = f'{len(images) + 1:06d}.jpg'
            Image.fromarray(image).save(root / split / name, quality=95)
            images.append({'id': len(images) + 1, 'file_name': name, 'width': WIDTH, 'height': HEIGHT, 'license': 1})
            annotations += [{'id': len(annotations) + place, 'image_id': len(images), **one}
                            for place, one in enumerate(found, 1)]
        save_json(root / 'annotations' / f'instances_{split}.json',
                  {'info': info, 'licenses': HEADER['licenses'], 'images': images, 'annotations': annotations,
                   'categories': categories})
    return counts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to make')
    parser.add_argument('--fonts', nargs='+', type=Path, metavar='FOLDER',
                        default=[Path(folder).expanduser() for folder in FOLDERS],
                        help=f'where to look for fonts (default: {" ".join(FOLDERS)})')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--families', type=integer(2, 100_000), default=600, metavar='N',
                       help='least number of families (default: %(default)s); all that there are will be used')
    which.add_argument('--like', type=Path, metavar='FONTS_JSON', help="take another data set's fonts and its split")
    parser.add_argument('--words', action='store_true', help='words on photographs, to detect their characters')
    parser.add_argument('--train', type=integer(1, 100_000), default=2400, metavar='N',
                        help='with --words, images to train on (default: %(default)s)')
    parser.add_argument('--val', type=integer(1, 100_000), default=300, metavar='N',
                        help='with --words, images to validate on (default: %(default)s)')
    parser.add_argument('--seed', type=integer(0, 2**32 - 1), default=0, metavar='N',
                        help='of the split, but with --like, and of words (default: %(default)s)')
    args = parser.parse_args(argv)
    out = args.out.resolve()
    if out.exists():
        parser.error(f'{out} exists: name another folder, or remove it')
    try:
        if args.like:
            (faces, glyphs, splits), left_out = select_like(args.like, args.fonts), []
        else:
            faces, glyphs, left_out = select(args.fonts, args.families)
            splits = split_families([face.family for face in faces], args.seed)
        if not splits['train']:
            raise FontError('all families begin with the same word, and would be in one split: install others')
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{out.name}-', dir=out.parent) as work:
            new = Path(work, 'new')
            counts = write_words(new, faces, splits, {'train': args.train, 'val': args.val}, args.seed) if args.words \
                else write_pictures(new, faces, glyphs, splits)
            (new / 'fonts.json').write_text(json.dumps(describe(faces, splits), indent=1, ensure_ascii=False) + '\n',
                                            encoding='utf-8')
            os.rename(new, out)
    except (FontError, OSError) as error:
        parser.exit(1, f'{parser.prog}: error: {error}\n')
    for line in left_out:
        print(f'left out: {line}', file=sys.stderr)
    families = ', '.join(f'{len(splits[split])} families to {verb}' for split, verb in (
        ('train', 'train on'), ('val', 'validate on')))
    print(f'{out}: {families}; {counts["train"]} and {counts["val"]} pictures; {len(left_out)} font files left out')


if __name__ == '__main__':
    main()

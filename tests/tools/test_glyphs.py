"""Pictures and words drawn with fonts: what is in them, whose fonts they are, and what is refused."""
from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image
from pycocotools.coco import COCO

FONTS = Path(matplotlib.get_data_path(), 'fonts', 'ttf')  # which are there wherever the tests run
FILES = ('DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSans-Oblique', 'DejaVuSerif', 'STIXGeneral', 'cmr10', 'cmtt10',
         'cmss10')
FAMILIES = {'DejaVu Sans', 'DejaVu Serif', 'STIXGeneral', 'cmr10', 'cmss10', 'cmtt10'}
IMAGES = {'train': 6, 'val': 3}


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('glyphs')


@pytest.fixture
def fonts(tmp_path) -> Path:
    """A folder of fonts: three styles of one family, and five other families."""
    folder = tmp_path / 'fonts'
    folder.mkdir()
    for name in FILES:
        shutil.copy(FONTS / f'{name}.ttf', folder)
    return folder


def make(tool, out: Path, fonts: Path, *options: object) -> dict:
    """Returns fonts.json."""
    tool.main([str(part) for part in (out, '--fonts', fonts, '--families', 6, *options)])
    return json.loads((out / 'fonts.json').read_text(encoding='utf-8'))


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def renamed(source: Path, target: Path, family: str) -> None:
    """A copy of a font whose family has another name."""
    font = TTFont(source)
    for record in font['name'].names:
        if record.nameID in (1, 16):
            record.string = family
    font.save(target)


def refused(tool, capsys, *arguments: object) -> str:
    """What a call that fails says."""
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(argument) for argument in arguments])
    assert stopped.value.code
    return capsys.readouterr().err


def test_pictures(tool, fonts, tmp_path, capsys):
    found = make(tool, tmp_path / 'set', fonts)
    assert set(found) == FAMILIES and found['DejaVu Sans']['file'] == 'DejaVuSans.ttf'  # the plain one
    splits = {split: {family for family, font in found.items() if font['split'] == split} for split in IMAGES}
    assert 2 <= len(splits['val']) < len(splits['train']) or len(splits['val']) == 2
    assert not splits['train'] & splits['val']
    for split, families in splits.items():
        assert sorted(path.name for path in (tmp_path / 'set' / split).iterdir()) == sorted(tool.CLASSES)
        for name in tool.CLASSES:
            assert {path.stem for path in (tmp_path / 'set' / split / name).iterdir()} == families
    picture = np.asarray(Image.open(next((tmp_path / 'set').glob('*/upper_E/DejaVu Sans.png'))))
    assert picture.shape == (32, 32) and picture.dtype == np.uint8 and picture.max() > 200
    ink = np.argwhere(picture > 128)
    assert abs((ink[:, 1].min() + ink[:, 1].max()) / 2 - 15.5) <= 1.5  # in the middle
    assert (picture > 128)[:, ink[:, 1].min() + 1].sum() > 15  # its stem
    out = capsys.readouterr().out
    assert f'{len(splits["train"])} families to train on' in out and str(62 * len(splits['train'])) in out


def test_like_another_set_whatever_is_installed_beside_its_fonts(tool, fonts, tmp_path):
    few = tmp_path / 'few'
    few.mkdir()
    for name in ('DejaVuSans', 'STIXGeneral', 'cmr10', 'cmss10'):
        shutil.copy(FONTS / f'{name}.ttf', few)
    tool.main([str(part) for part in (tmp_path / 'first', '--fonts', few, '--families', 4, '--seed', 3)])
    record = tmp_path / 'first' / 'fonts.json'
    # a plainer font of a family that is taken, and others that would change who is left out and the split
    renamed(FONTS / 'DejaVuSerif.ttf', fonts / 'AAA.ttf', 'cmr10')
    for options, name in (((), 'other'), (('--like', record), 'second')):
        least = () if options else ('--families', 4)
        tool.main([str(part) for part in (tmp_path / name, '--fonts', fonts, *least, *options)])
    first, other, second = (digests(tmp_path / name) for name in ('first', 'other', 'second'))
    assert second == first != other
    words = '--words', '--train', 2, '--val', 2, '--like', record
    tool.main([str(part) for part in (tmp_path / 'words', '--fonts', fonts, *words)])
    assert (tmp_path / 'words' / 'fonts.json').read_bytes() == record.read_bytes()


def test_like_a_set_of_linked_fonts(tool, fonts, tmp_path):
    """A record has the names of the files themselves."""
    links = tmp_path / 'links'
    links.mkdir()
    for path in fonts.iterdir():
        (links / f'link-{path.name}').symlink_to(path)
    make(tool, tmp_path / 'first', links)
    record = tmp_path / 'first' / 'fonts.json'
    tool.main([str(part) for part in (tmp_path / 'second', '--fonts', links, '--like', record)])
    assert digests(tmp_path / 'second') == digests(tmp_path / 'first')


def test_like_what_is_no_set_or_not_there(tool, fonts, tmp_path, capsys):
    record = tmp_path / 'record.json'
    good = make(tool, tmp_path / 'set', fonts)

    def changed(**values):
        return json.dumps(good | {'cmr10': good['cmr10'] | values})

    def renamed_to(name):
        return json.dumps({family if family != 'cmr10' else name: font for family, font in good.items()})

    cases = {
        '{': 'is no fonts.json of such a data set (JSONDecodeError', '[]': 'is no fonts.json', '[' * 100_000: 'is no',
        '{}': 'train or val has no families', changed(sha256=[1]): 'not all that it says is text',
        changed(package=None): 'not all that it says is text', changed(split='test'): "must be of 'train' or 'val'",
        changed(sha256=good['cmss10']['sha256']): 'two families have the same font',
        **{renamed_to(name): 'can be no name of a file' for name in ('/tmp/x', '../x', 'a/b', '', '..', 'a\0', '\ud800',
                                                                   300 * 'a')},
        changed(sha256='0' * 64, package='fonts-of-another-time'): '1 of the 6 fonts of'}
    before = sorted(tmp_path.rglob('*'))
    for content, words in cases.items():
        record.write_text(content, encoding='utf-8')
        error = refused(tool, capsys, tmp_path / 'out', '--fonts', fonts, '--like', record)
        assert words in error and 'Traceback' not in error
        assert sorted(tmp_path.rglob('*')) == sorted([*before, record])
    assert 'such as cmr10, are not in' in error and error.rstrip().endswith('fonts-of-another-time')
    assert 'not allowed with' in refused(tool, capsys, tmp_path / 'out', '--families', 3, '--like', record)
    assert 'FileNotFoundError' in refused(tool, capsys, tmp_path / 'out', '--like', tmp_path / 'none.json')


def test_like_with_a_font_that_cannot_be_drawn(tool, fonts, tmp_path, capsys, monkeypatch):
    make(tool, tmp_path / 'set', fonts)

    def draw(path):
        raise tool.FontError('draws many characters alike')

    monkeypatch.setattr(tool, 'draw_glyphs', draw)
    error = refused(tool, capsys, tmp_path / 'out', '--fonts', fonts, '--like', tmp_path / 'set' / 'fonts.json')
    assert 'DejaVuSans.ttf, the font of DejaVu Sans in' in error and 'draws many characters alike' in error


def test_letters_share_a_base_line_and_a_size(tool):
    glyphs = dict(zip(tool.CHARACTERS, tool.draw_glyphs(FONTS / 'DejaVuSans.ttf')))
    box = {letter: np.argwhere(glyph > 100)[:, 0] for letter, glyph in glyphs.items()}
    assert abs(int(box['x'].max()) - int(box['X'].max())) <= 1 and box['x'].min() > box['X'].min() + 3
    assert box['p'].max() > box['x'].max() + 2
    assert min(rows.min() for rows in box.values()) >= 1 and max(rows.max() for rows in box.values()) <= 30


def test_families_that_begin_alike_stand_together(tool):
    families = ['Alpha', 'Beta One', 'Beta Two', 'Beta Three', 'Gamma', 'delta', 'Delta Sans']
    for seed in range(20):
        splits = tool.split_families(families, seed)
        assert sorted([*splits['train'], *splits['val']]) == sorted(families)
        sides = [{family.split()[0].casefold() for family in splits[split]} for split in ('train', 'val')]
        assert not sides[0] & sides[1] and len(splits['val']) >= 2
    assert len({tuple(tool.split_families(families, seed)['val']) for seed in range(20)}) > 1


def test_words(tool, fonts, tmp_path):
    options = ('--words', '--train', IMAGES['train'], '--val', IMAGES['val'])
    found = make(tool, tmp_path / 'set', fonts, *options)
    assert set(found) == FAMILIES
    for split, count in IMAGES.items():
        coco = COCO(str(tmp_path / 'set' / 'annotations' / f'instances_{split}.json'))
        assert len(coco.getImgIds()) == count
        assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == tool.CLASSES
        for image in coco.loadImgs(coco.getImgIds()):
            picture = Image.open(tmp_path / 'set' / split / image['file_name'])
            assert picture.size == (image['width'], image['height']) == (160, 128)
            boxes = coco.loadAnns(coco.getAnnIds(image['id']))
            assert boxes
            for box in boxes:
                x, y, w, h = box['bbox']
                assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 160 and y + h <= 128
                assert box['area'] == w * h


def test_boxes_are_those_of_the_ink(tool):
    """Of a word whose characters do not touch."""
    word = tool.draw_word(FONTS / 'DejaVuSansMono.ttf', [tool.CHARACTERS.index(letter) for letter in 'iX1'], 40)
    assert [index for index, _ in word.characters] == [tool.CHARACTERS.index(letter) for letter in 'iX1']
    covered = np.zeros_like(word.alpha)
    for _, (x, y, w, h) in word.characters:
        part = word.alpha[y:y + h, x:x + w]
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
        covered[y:y + h, x:x + w] = 1
    assert not word.alpha[covered == 0].any()


@pytest.mark.parametrize('options', [(), ('--words', '--train', '3', '--val', '2')], ids=['pictures', 'words'])
def test_the_same_bytes(tool, fonts, tmp_path, options):
    for name in ('one', 'two'):
        make(tool, tmp_path / name, fonts, *options)
    make(tool, tmp_path / 'other', fonts, *options, '--seed', 1)
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two') != digests(tmp_path / 'other')


def test_fonts_that_are_left_out(tool, fonts, tmp_path, capsys):
    """One cut short, one that is none, one without letters, one of pictures, one of boxes, and one seen before."""
    (fonts / 'cut.ttf').write_bytes((FONTS / 'DejaVuSans.ttf').read_bytes()[:5000])
    (fonts / 'none.otf').write_text('no font')
    for name in ('DejaVuSansDisplay', 'cmex10', 'LastResortHE-Regular'):
        shutil.copy(FONTS / f'{name}.ttf', fonts)
    renamed(FONTS / 'DejaVuSans.ttf', fonts / 'twin.ttf', 'Twin of Another')
    assert set(make(tool, tmp_path / 'set', fonts)) == FAMILIES
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith('left out: ')]
    assert len(said) == 6
    for file, words in (('cut.ttf', 'cannot be'), ('none.otf', 'cannot be read'), ('DejaVuSansDisplay', 'lacks'),
                        ('cmex10', 'look as others draw them'), ('LastResort', 'alike'),
                        ('twin.ttf', 'looks like DejaVu Sans')):
        line, = (line for line in said if file in line)
        assert words in line


def test_licences(tool, fonts, tmp_path):
    found = make(tool, tmp_path / 'set', fonts)
    assert 'dejavu' in found['DejaVu Sans']['licence'].lower() and '2.3' in found['DejaVu Sans']['version']
    for font in found.values():
        assert font['sha256'] == hashlib.sha256((fonts / font['file']).read_bytes()).hexdigest()


def test_refused(tool, fonts, tmp_path, capsys):
    out = tmp_path / 'set'
    (tmp_path / 'empty').mkdir()
    assert 'no font files' in refused(tool, capsys, out, '--fonts', tmp_path / 'empty')
    assert 'no font files' in refused(tool, capsys, out, '--fonts', tmp_path / 'nowhere')
    said = refused(tool, capsys, out, '--fonts', fonts)
    assert '6 families have all characters' in said and '600' in said and '--families' in said
    assert 'must be an integer' in refused(tool, capsys, out, '--families', 1)
    assert not out.exists() and sorted(path.name for path in tmp_path.iterdir()) == ['empty', 'fonts']
    out.mkdir()
    assert 'exists' in refused(tool, capsys, out, '--fonts', fonts, '--families', 6)


def test_nothing_is_left_of_a_broken_run(tool, fonts, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, 'describe', fail)
    with pytest.raises(KeyboardInterrupt):
        make(tool, tmp_path / 'set', fonts)
    assert [path.name for path in tmp_path.iterdir()] == ['fonts']


def test_fonts_of_one_group(tool, fonts, tmp_path, capsys):
    for path in fonts.iterdir():
        if not path.name.startswith('DejaVu'):
            path.unlink()
    said = refused(tool, capsys, tmp_path / 'set', '--fonts', fonts, '--families', 2)
    assert 'same word' in said and not (tmp_path / 'set').exists()

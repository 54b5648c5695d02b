"""The digits data set is valid COCO, its splits share nothing, and making it never destroys other files."""
import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'dataset_converters' / 'make_digits_coco.py'
SMALL = ('--train', '12', '--val', '6')
SPLITS = {'train': 12, 'val': 6}


def load_tool():
    spec = importlib.util.spec_from_file_location('make_digits_coco', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


tool = load_tool()


def make(out: Path, *arguments: str) -> Path:
    tool.main([str(out), *SMALL, *arguments])
    return out


def digests(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob('*')) if path.is_file()}


def assert_refused(capsys, words: str, *arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main(list(arguments))
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def read_panoptic(root: Path, split: str) -> list[tuple[dict, np.ndarray]]:
    """Each panoptic annotation with its decoded segment ids ``int[H, W]``."""
    folder = root / 'annotations' / f'panoptic_{split}'
    pairs = []
    for annotation in json.loads(folder.with_suffix('.json').read_text())['annotations']:
        colours = np.asarray(Image.open(folder / annotation['file_name'])).astype(np.int64)
        pairs.append((annotation, colours @ [1, 256, 65536]))
    return pairs


def tight_box(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp('digits') / 'set')


@pytest.fixture(params=SPLITS)
def split(request) -> str:
    return request.param


@pytest.fixture
def coco(dataset, split) -> COCO:
    return COCO(str(dataset / 'annotations' / f'instances_{split}.json'))


# What is in a data set.


def test_images_are_as_announced(dataset, split, coco):
    assert sorted(path.name for path in (dataset / split).iterdir()) == sorted(
        image['file_name'] for image in coco.imgs.values())
    assert len(coco.imgs) == SPLITS[split]
    for image in coco.imgs.values():
        with Image.open(dataset / split / image['file_name']) as picture:
            assert picture.size == (image['width'], image['height']) == (160, 128)
            assert picture.mode == 'RGB'


def test_categories(dataset, split, coco):
    names = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
    assert [coco.cats[i]['name'] for i in range(1, 11)] == names and len(coco.cats) == 10
    panoptic = json.loads((dataset / 'annotations' / f'panoptic_{split}.json').read_text())['categories']
    assert {category['id']: category['isthing'] for category in panoptic} == {
        i: int(i <= 10) for i in range(1, 15)}
    assert [category['name'] for category in panoptic] == [*names, 'sky', 'building', 'petal', 'foliage']


def test_instances_agree_with_their_masks(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.sum() == annotation['area'] > 0
        assert tight_box(mask) == annotation['bbox']
        assert annotation['iscrowd'] == 0


def test_instances_name_the_digit_they_show(coco):
    target = tool.load_digits().target
    for annotation in coco.anns.values():
        assert annotation['category_id'] == target[annotation['digit_sample']] + 1


def test_every_image_has_its_number_of_objects(coco):
    assert {1 <= len(coco.imgToAnns[image]) <= 6 for image in coco.imgs} == {True}


def test_objects_hardly_overlap(coco):
    for annotations in coco.imgToAnns.values():
        boxes = np.array([annotation['bbox'] for annotation in annotations], float)
        iou = coco_mask.iou(boxes, boxes, [0] * len(boxes))
        assert (iou - np.eye(len(boxes)) <= 0.2).all()
        assert (sum(coco.annToMask(annotation) for annotation in annotations) <= 1).all()


def test_both_kinds_of_segmentation_occur(dataset):
    instances = json.loads((dataset / 'annotations' / 'instances_train.json').read_text())
    assert {type(annotation['segmentation']) for annotation in instances['annotations']} == {list, dict}


def test_panoptic_segments_cover_the_image(dataset, split):
    for annotation, ids in read_panoptic(dataset, split):
        segments = {segment['id']: segment for segment in annotation['segments_info']}
        assert set(np.unique(ids)) == set(segments) and 0 not in segments
        for segment_id, segment in segments.items():
            assert (ids == segment_id).sum() == segment['area']
            assert tight_box(ids == segment_id) == segment['bbox']


def test_panoptic_things_are_the_instances(dataset, split, coco):
    for annotation, ids in read_panoptic(dataset, split):
        instances = {instance['id']: instance for instance in coco.imgToAnns[annotation['image_id']]}
        things = {segment['id']: segment for segment in annotation['segments_info']
                  if segment['category_id'] <= 10}
        assert things.keys() == instances.keys()
        for thing_id, thing in things.items():
            assert thing['category_id'] == instances[thing_id]['category_id']
            assert np.array_equal(ids == thing_id, coco.annToMask(instances[thing_id]))


def test_panoptic_image_names_lead_to_the_segments(dataset, split):
    panoptic = json.loads((dataset / 'annotations' / f'panoptic_{split}.json').read_text())
    assert [image['file_name'].replace('jpg', 'png') for image in panoptic['images']] == [
        annotation['file_name'] for annotation in panoptic['annotations']]


def test_semantic_maps_are_those_of_the_segments(dataset, split):
    """Labels of COCO's stuffthingmaps: category ids less one."""
    names = set()
    for annotation, ids in read_panoptic(dataset, split):
        with Image.open(dataset / 'stuffthingmaps' / split / annotation['file_name']) as picture:
            assert picture.mode == 'L'
            labels = np.asarray(picture)
        expected = np.full(ids.shape, 255)
        for segment in annotation['segments_info']:
            expected[ids == segment['id']] = segment['category_id'] - 1
        assert np.array_equal(labels, expected)
        names.add(annotation['file_name'])
    assert names == {path.name for path in (dataset / 'stuffthingmaps' / split).iterdir()}


# The splits share nothing.


def test_no_digit_is_in_both_splits(dataset):
    train, val = ({annotation['digit_sample'] for annotation in json.loads(
        (dataset / 'annotations' / f'instances_{name}.json').read_text())['annotations']} for name in SPLITS)
    assert train and val and not train & val


def test_pools_hold_every_sample_once_and_every_class():
    target = tool.load_digits().target
    pools = tool.split_samples(target, seed=3)
    assert sorted(np.concatenate(list(pools.values()))) == list(range(len(target)))
    assert all(set(target[pool]) == set(range(10)) for pool in pools.values())


@pytest.mark.parametrize('name', ['china.jpg', 'flower.jpg'])
def test_regions_share_no_pixel_of_a_photograph(name):
    uses = np.zeros(tool.load_sample_image(name).shape[:2], int)
    for regions in tool.REGIONS.values():
        uses[regions[name]] += 1
    assert (uses == 1).all()


def test_every_stuff_is_on_the_grounds_of_a_split(split):
    grounds = tool.load_grounds(split, 160, 128)
    assert {stuff for ground in grounds for stuff in np.unique(ground.stuff)} == set(tool.STUFF)


@pytest.mark.parametrize('size', [(32, 32), (500, 64), (64, 500), (1024, 1024)])
def test_grounds_are_as_large_as_an_image(split, size):
    width, height = size
    for ground in tool.load_grounds(split, width, height):
        assert ground.stuff.shape == ground.photo.shape[:2]
        assert ground.stuff.shape[0] >= height and ground.stuff.shape[1] >= width


# Masks.


def masks() -> dict[str, np.ndarray]:
    blank = np.zeros((9, 12), np.uint8)
    shapes = {name: blank.copy() for name in ('pixel', 'full', 'corners', 'ring', 'two')}
    shapes['pixel'][3, 5] = 1
    shapes['full'][:] = 1
    shapes['corners'][[1, 2, 3], [1, 2, 1]] = 1
    shapes['ring'][2:7, 2:7] = 1
    shapes['ring'][4, 4] = 0
    shapes['two'][:2, :3] = shapes['two'][5:, 7:] = 1
    return shapes


@pytest.mark.parametrize('name', masks())
def test_encoded_masks_keep_every_pixel(name):
    mask = masks()[name]
    encoded = tool.encode_mask(mask)
    coco = COCO()
    coco.imgs = {1: {'height': mask.shape[0], 'width': mask.shape[1]}}
    assert np.array_equal(coco.annToMask({'image_id': 1, 'segmentation': encoded}), mask)
    assert isinstance(encoded, dict) == (name == 'ring')
    json.dumps(encoded)


def test_overlap_is_a_part_of_the_smaller_box():
    assert tool.overlap((0, 0, 10, 10), (5, 5, 10, 10)) == 0.25
    assert tool.overlap((0, 0, 10, 10), (2, 2, 2, 2)) == 1
    assert tool.overlap((0, 0, 10, 10), (20, 20, 5, 5)) == 0


# The options.


def test_same_seed_same_bytes(dataset, tmp_path):
    assert digests(make(tmp_path / 'again')) == digests(dataset)


def test_other_seed_other_bytes(dataset, tmp_path):
    other, one = digests(make(tmp_path / 'other', '--seed', '1')), digests(dataset)
    assert other.keys() == one.keys()
    assert not set(other.values()) & set(one.values())


def test_size_and_objects_are_obeyed(tmp_path):
    out = make(tmp_path / 'set', '--width', '96', '--height', '200', '--objects-min', '3',
               '--objects-max', '3')
    coco = COCO(str(out / 'annotations' / 'instances_train.json'))
    assert {len(coco.imgToAnns[image]) for image in coco.imgs} == {3}
    with Image.open(out / 'train' / '000001.jpg') as picture:
        assert picture.size == (96, 200)


@pytest.mark.parametrize(('option', 'value', 'words'), [
    ('--train', '0', 'argument --train: must be an integer from 1 to'),
    ('--val', '-1', 'argument --val: must be an integer from 1 to'),
    ('--width', '31', 'argument --width: must be an integer from 32 to'),
    ('--height', 'high', 'argument --height: must be an integer from 32 to'),
    ('--seed', '-1', 'argument --seed: must be an integer from 0 to'),
    ('--objects-min', '9', 'argument --objects-min: must be from 1 to --objects-max'),
    ('--objects-max', '21', 'argument --objects-max: must be an integer from 1 to 20'),
])
def test_bad_options_are_refused(tmp_path, capsys, option, value, words):
    assert_refused(capsys, words, str(tmp_path / 'set'), option, value)
    assert not list(tmp_path.iterdir())


def test_too_many_digits_for_an_image(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        make(tmp_path / 'set', '--width', '32', '--height', '32', '--objects-min', '20',
             '--objects-max', '20')
    assert stopped.value.code == 1
    assert 'lower --objects-min' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# What is already there.


@pytest.fixture
def foreign(tmp_path) -> Path:
    folder = tmp_path / 'foreign'
    folder.mkdir()
    (folder / 'thesis.txt').write_text('years of work')
    return folder


def test_foreign_folder_is_refused(foreign, capsys):
    before = digests(foreign.parent)
    assert_refused(capsys, 'choose another folder, or pass --force', str(foreign), *SMALL)
    assert digests(foreign.parent) == before


def test_a_marker_of_something_else_does_not_count(foreign, capsys):
    (foreign / tool.MARKER).write_text('[1, 2]')
    assert_refused(capsys, 'not made by this tool', str(foreign), *SMALL)


def test_empty_folder_is_used(dataset, tmp_path):
    (tmp_path / 'set').mkdir()
    assert digests(make(tmp_path / 'set')) == digests(dataset)


def test_force_replaces_everything(dataset, foreign):
    make(foreign, '--force')
    assert digests(foreign) == digests(dataset)
    assert list(foreign.parent.iterdir()) == [foreign]


def test_same_options_twice_does_nothing(dataset, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'build', lambda *_: pytest.fail('was made again'))
    make(dataset)
    assert 'already there' in capsys.readouterr().out


def test_other_options_need_force(tmp_path, capsys):
    out = make(tmp_path / 'set')
    before = digests(out)
    assert_refused(capsys, 'made with other options', str(out), *SMALL, '--seed', '1')
    assert digests(out) == before
    make(out, '--seed', '1', '--force')
    assert json.loads((out / tool.MARKER).read_text())['options']['seed'] == 1


@pytest.mark.parametrize('force', [(), ('--force',)])
def test_file_is_refused(tmp_path, capsys, force):
    file = tmp_path / 'file'
    file.write_text('precious')
    assert_refused(capsys, 'is not a folder', str(file), *force)
    assert file.read_text() == 'precious'


@pytest.mark.parametrize('place', ['/', '~', '.', '..'])
def test_force_spares_root_home_and_working_folder(tmp_path, monkeypatch, capsys, place):
    home, work = tmp_path / 'home', tmp_path / 'projects' / 'work'
    home.mkdir()
    work.mkdir(parents=True)
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.chdir(work)
    monkeypatch.setattr(tool, 'build', lambda *_: pytest.fail('was about to replace it'))
    assert_refused(capsys, 'home or the working folder', place, '--force')


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def interrupt(monkeypatch) -> None:
    """Let the tool stop at its fifth image."""
    compose, calls = tool.compose, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise Interrupted
        return compose(*arguments)

    monkeypatch.setattr(tool, 'compose', stop)


def test_interrupted_run_leaves_nothing(dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt(patch)
        make(tmp_path / 'set')
    assert not list(tmp_path.iterdir())
    assert digests(make(tmp_path / 'set')) == digests(dataset)


def test_interrupted_force_keeps_what_was_there(foreign, monkeypatch):
    before = digests(foreign.parent)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt(patch)
        make(foreign, '--force')
    assert digests(foreign.parent) == before


def test_failed_move_brings_the_old_folder_back(foreign, tmp_path):
    before = digests(foreign)
    with pytest.raises(FileNotFoundError):
        tool.publish(tmp_path / 'missing', foreign, tmp_path / 'aside')
    assert digests(foreign) == before


def test_folder_filled_meanwhile_is_kept(tmp_path, monkeypatch, capsys):
    out, write = tmp_path / 'set', tool.write_dataset

    def write_slowly(root, options):
        write(root, options)
        out.mkdir()
        (out / 'thesis.txt').write_text('years of work')

    monkeypatch.setattr(tool, 'write_dataset', write_slowly)
    with pytest.raises(SystemExit) as stopped:
        make(out)
    assert stopped.value.code == 1
    assert [path.name for path in tmp_path.rglob('*')] == ['set', 'thesis.txt']

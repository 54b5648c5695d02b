"""LoadCocoPanopticAnnotations loads what mmdet's LoadPanopticAnnotations does, without panopticapi."""
import json
import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS

from dynconv_mm.datasets.panoptic_png import encode_panoptic_png

IDS = np.array([[7, 7, 0, 9, 9], [7, 300, 300, 9, 70000], [0, 300, 300, 70000, 70000]])
SEGMENTS = [
    dict(id=300, category=1, is_thing=1),
    dict(id=7, category=0, is_thing=1),
    dict(id=9, category=1, is_thing=False),  # a crowd
    dict(id=70000, category=2, is_thing=0),
]
INSTANCES = [dict(bbox=[1, 1, 3, 3], bbox_label=1, ignore_flag=0), dict(bbox=[0, 0, 2, 2], bbox_label=0, ignore_flag=0)]


@pytest.fixture
def results(tmp_path) -> dict:
    pytest.importorskip('mmdet')
    (tmp_path / 'ids.png').write_bytes(encode_panoptic_png(IDS))
    return dict(seg_map_path=str(tmp_path / 'ids.png'), ori_shape=IDS.shape, segments_info=SEGMENTS,
                instances=INSTANCES)


def build(**kwargs):
    return TRANSFORMS.build(dict(type='LoadCocoPanopticAnnotations', **kwargs))


def test_everything(results):
    loaded = build()(results)
    assert loaded['gt_bboxes'].tensor.tolist() == [[1, 1, 3, 3], [0, 0, 2, 2]]
    assert loaded['gt_bboxes_labels'].tolist() == [1, 0]
    assert loaded['gt_ignore_flags'].tolist() == [False, False]
    assert np.array_equal(loaded['gt_masks'].masks, [IDS == 300, IDS == 7])
    assert loaded['gt_seg_map'].dtype == np.uint8
    assert loaded['gt_seg_map'].tolist() == [[0, 0, 255, 1, 1], [0, 1, 1, 1, 2], [255, 1, 1, 2, 2]]


def test_as_mmdet_does_with_panopticapi(results, monkeypatch):
    """mmdet's own transform, which asks panopticapi for one function."""
    from mmdet.datasets.transforms import LoadPanopticAnnotations
    api, utils = ModuleType('panopticapi'), ModuleType('panopticapi.utils')
    api.utils, utils.rgb2id = utils, lambda colours: colours.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    monkeypatch.setitem(sys.modules, 'panopticapi', api)
    monkeypatch.setitem(sys.modules, 'panopticapi.utils', utils)
    theirs, ours = LoadPanopticAnnotations()(dict(results)), build()(dict(results))
    assert theirs.keys() == ours.keys()
    assert torch.equal(theirs['gt_bboxes'].tensor, ours['gt_bboxes'].tensor)
    assert np.array_equal(theirs['gt_masks'].masks, ours['gt_masks'].masks)
    for key in ('gt_bboxes_labels', 'gt_ignore_flags', 'gt_seg_map'):
        assert np.array_equal(theirs[key], ours[key])


@pytest.mark.parametrize('part, key', [('with_bbox', 'gt_bboxes'), ('with_label', 'gt_bboxes_labels'),
                                       ('with_mask', 'gt_masks'), ('with_seg', 'gt_seg_map')])
def test_parts(results, part, key):
    assert key not in build(**{part: False})(dict(results))
    assert key in build(**{'with_bbox': False, 'with_label': False, 'with_mask': False, 'with_seg': False,
                           part: True})(dict(results))


@pytest.mark.parametrize('absent', [dict(seg_map_path=None), {}], ids=['None', 'no key'])
def test_inference_has_no_annotations(results, absent):
    loaded = build()({'ori_shape': (3, 5), **absent})
    assert len(loaded['gt_bboxes']) == 0 and 'gt_masks' not in loaded and 'gt_seg_map' not in loaded


def test_no_things(results):
    results.update(instances=[], segments_info=SEGMENTS[2:])
    loaded = build()(results)
    assert len(loaded['gt_masks']) == 0 and loaded['gt_masks'].masks.shape == (0, 3, 5)
    assert sorted(np.unique(loaded['gt_seg_map'])) == [1, 2, 255]


@pytest.mark.parametrize('change, message', [
    (dict(segments_info=[dict(id=8, category=0, is_thing=1)]), 'has no pixel of the segment 8'),
    (dict(ori_shape=(5, 3)), r'is of height and width \(3, 5\), but its image of \(5, 3\)'),
    (dict(segments_info=[dict(id=7, category=255, is_thing=0)]), 'at most 255 categories'),
])
def test_other_data(results, change, message):
    with pytest.raises(ValueError, match=message):
        build()({**results, **change})


def test_data_loaders_can_pickle_it(results):
    transform = build(with_seg=False)
    twin = pickle.loads(pickle.dumps(transform))
    assert repr(twin) == repr(transform) and 'with_seg=False' in repr(twin)
    assert 'gt_seg_map' not in twin(results)


def build_data_set(digits, **kwargs):
    """mmdet's data set of the digits to validate with, resized and packed."""
    datasets = pytest.importorskip('mmdet.registry').DATASETS
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet')
    names = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
    stuff = ('sky', 'building', 'petal', 'foliage')
    return datasets.build(dict(
        type='CocoPanopticDataset', data_root=str(digits), test_mode=True,
        metainfo=dict(classes=names + stuff, thing_classes=names, stuff_classes=stuff),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadCocoPanopticAnnotations'),
                  dict(type='Resize', scale=(320, 256), keep_ratio=True), dict(type='PackDetInputs')], **kwargs))


def test_images_without_annotations(digits, tmp_path):
    """As in COCO's test-dev, of which there is a list of images alone."""
    content = json.loads((digits / 'annotations' / 'panoptic_val.json').read_text())
    del content['annotations']
    (tmp_path / 'image_info.json').write_text(json.dumps(content))
    dataset = build_data_set(digits, ann_file=str(tmp_path / 'image_info.json'), data_prefix=dict(img='val/'))
    assert len(dataset) == 4
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 256, 320)
    assert len(sample['data_samples'].gt_instances) == 0 and 'gt_sem_seg' not in sample['data_samples']


def test_in_the_pipeline_of_a_data_set(digits):
    dataset = build_data_set(digits, ann_file='annotations/panoptic_val.json',
                             data_prefix=dict(img='val/', seg='annotations/panoptic_val/'))
    assert len(dataset) == 4
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        semantic = sample.gt_sem_seg.sem_seg
        assert semantic.shape == (1, 256, 320) and semantic.dtype == torch.uint8
        assert set(semantic.unique().tolist()) <= set(range(14))
        for label, mask in zip(sample.gt_instances.labels, sample.gt_instances.masks.masks):
            assert mask.any() and (semantic[0].numpy()[mask > 0] == int(label)).all()


def test_without_mmdet(run):
    code = ('import sys; sys.modules["mmdet"] = None; import dynconv_mm\n'
            'from mmengine.registry import TRANSFORMS\n'
            'TRANSFORMS.build(dict(type="LoadCocoPanopticAnnotations"))')
    done = run(sys.executable, '-c', code)
    assert done.returncode == 1
    assert 'LoadCocoPanopticAnnotations is built on mmdet' in done.stdout.splitlines()[-1]

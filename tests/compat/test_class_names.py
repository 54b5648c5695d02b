"""Classes of a config that do not fit its annotations or its heads are refused before anything is built."""
import json
import re

import pytest

from dynconv_mm.compat.class_names import check_classes

NAMES = ('zero', 'one', 'two')


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'val.json').write_text(json.dumps(dict(images=[], categories=[dict(id=n, name=name)
                                                                              for n, name in enumerate(NAMES)])))

    def make(classes, num_classes=3, **settings):
        dataset = dict(type='CocoDataset', data_root=f'{tmp_path}/', ann_file='val.json',
                       metainfo=dict(classes=classes), **settings)
        heads = dict(rpn_head=dict(num_classes=1), roi_head=dict(
            bbox_head=[dict(num_classes=3), dict(num_classes=num_classes)], mask_head=dict(num_classes=3)))
        return dict(model=heads, val_dataloader=dict(dataset=dataset))

    return make


def test_what_fits(config):
    for classes in (NAMES, NAMES[::-1], list(NAMES)):
        check_classes(config(classes), ('train_dataloader', 'val_dataloader'))
    check_classes(config(NAMES[:2], model=None) | dict(model={}), ('val_dataloader', ))  # some of the categories
    check_classes({}, ('val_dataloader', ))
    without = config(NAMES)
    without['val_dataloader']['dataset'].pop('metainfo')
    check_classes(without, ('val_dataloader', ))
    missing = config(('cat', 'dog', 'cow'))
    missing['val_dataloader']['dataset']['ann_file'] = 'none.json'  # mmdet says that
    check_classes(missing, ('val_dataloader', ))
    panoptic = config(('cat', ))
    panoptic['val_dataloader']['dataset']['type'] = 'CocoPanopticDataset'
    check_classes(panoptic, ('val_dataloader', ))


@pytest.mark.parametrize('classes, num_classes, message', [
    (('zero', 'won', 'too'), 3, r"val_dataloader\.dataset\.metainfo\.classes has 'won', 'too', but \S+val\.json has "
                                "only the categories 'zero', 'one', 'two'"),
    (NAMES, 80, r'model\.roi_head\.bbox_head\[1\]\.num_classes is 80, but val_dataloader\.dataset\.metainfo\.classes '
                'has 3: set both'),
    ('zero', 3, r"metainfo\.classes must be a list of names, but is a string: write \('zero', \)"),
])
@pytest.mark.parametrize('wrapped', [False, True])
def test_what_does_not_fit(config, classes, num_classes, message, wrapped):
    cfg = config(classes, num_classes)
    if wrapped:
        loader = cfg['val_dataloader']
        loader['dataset'] = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[loader['dataset']]))
    with pytest.raises(ValueError, match=message):
        check_classes(cfg, ('val_dataloader', ))
    check_classes(cfg, ('test_dataloader', ))  # it is not used


def test_a_file_of_names(config, tmp_path):
    (tmp_path / 'names.txt').write_text('zero\n')
    check_classes(config(str(tmp_path / 'names.txt')), ('val_dataloader', ))


def test_many_names(config, tmp_path):
    names = [f'class {number}' for number in range(40)]
    with pytest.raises(ValueError, match=re.escape("'class 9' and 30 more, but")):
        check_classes(config(names), ('val_dataloader', ))

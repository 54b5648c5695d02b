"""Whether the classes that a config names, those of its annotations and those of its model's heads agree."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HEADS = ('bbox_head', 'mask_head')  # whose num_classes is the number of classes of the data set
SHOWN = 10  # names in a message


def check_classes(cfg: Mapping, loaders: Sequence[str]) -> None:
    """Refuse a config of mmdet that names its own classes in ``metainfo`` where they do not fit.

    mmdet drops a class that the annotations do not have, and counts the others anew; where it has none of them, or a
    head has fewer outputs, it ends in an index error.

    Args:
        cfg (Mapping): the config.
        loaders (Sequence[str]): the names of those of its data loaders that will be used.

    Raises:
        ValueError: a class is no category of the annotation file; classes are one string; or ``num_classes`` of a head
            is another number.
    """
    for loader in loaders:
        for dataset in _datasets((cfg.get(loader) or {}).get('dataset')):
            classes = (dataset.get('metainfo') or {}).get('classes')
            if classes is None or 'Panoptic' in str(dataset.get('type')):
                continue
            where = f'{loader}.dataset.metainfo.classes'
            if isinstance(classes, str):
                if Path(classes).is_file():  # mmengine reads a name a line from it
                    continue
                raise ValueError(f'{where} must be a list of names, but is a string: write ({classes!r}, )')
            _check_annotations(dataset, classes, where)
            _check_heads(cfg.get('model') or {}, classes, where)


def _datasets(dataset: object) -> Iterator[Mapping]:
    """Those that read annotation files, within the ones that wrap them."""
    if isinstance(dataset, Mapping):
        if 'ann_file' in dataset:
            yield dataset
        for inner in (dataset.get('dataset'), *(dataset.get('datasets') or ())):
            yield from _datasets(inner)


def _check_annotations(dataset: Mapping, classes: Sequence[str], where: str) -> None:
    file = Path(dataset.get('data_root') or '', dataset['ann_file'])
    if 'Coco' not in str(dataset.get('type')) or not file.is_file():
        return
    found = json.loads(file.read_text(encoding='utf-8'))
    categories = [category['name'] for category in found.get('categories', [])]
    unknown = [name for name in classes if name not in categories]
    if unknown:
        raise ValueError(f'{where} has {_shown(unknown)}, but {file} has only the categories {_shown(categories)}')


def _check_heads(model: Mapping, classes: Sequence[str], where: str) -> None:
    for name, head in _heads(model, 'model'):
        if head['num_classes'] != len(classes):
            raise ValueError(f'{name}.num_classes is {head["num_classes"]}, but {where} has {len(classes)}: set both '
                             'to the classes of your data')


def _heads(cfg: object, name: str) -> Iterator[tuple[str, Mapping]]:
    """Those of :data:`HEADS`, of cascades too, by their names."""
    if isinstance(cfg, Mapping):
        if name.rpartition('.')[2].partition('[')[0] in HEADS and isinstance(cfg.get('num_classes'), int):
            yield name, cfg
        for key, value in cfg.items():
            yield from _heads(value, f'{name}.{key}')
    elif isinstance(cfg, (list, tuple)):
        for number, value in enumerate(cfg):
            yield from _heads(value, f'{name}[{number}]')


def _shown(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ', '.join(map(repr, names[:SHOWN])) + (f' and {more} more' if more > 0 else '')

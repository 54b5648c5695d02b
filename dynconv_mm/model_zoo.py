"""The networks of this package by name: listing and building them as ``mmpretrain.list_models`` and ``get_model``."""
from __future__ import annotations

import copy
import fnmatch
import functools
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DATASETS, MODELS, DefaultScope, init_default_scope
from torch import nn

from .compat.close_names import did_you_mean
from .compat.optional import import_optional
from .conversion import check_fit, read_state_dict

FOLDER = Path(__file__).resolve().parent / '.mim'  # where the installation puts configs and model index
SCOPES = {'Image Classification': 'mmpretrain'}  # of all other tasks: mmdet
BUFFERS = ('.temperature', '.num_batches_tracked')  # what a checkpoint may lack: a layer without it starts at 1 and 0


@functools.cache
def _index() -> dict[str, dict]:
    """The entries of the model index by name.

    Raises:
        FileNotFoundError: the package is not installed, only imported from its folder.
    """
    if not (FOLDER / 'model-index.yml').is_file():
        raise FileNotFoundError(f'{FOLDER} has no model index: install dynconv_mm (`pip install .` or `pip install -e '
                                '.` in its folder) instead of importing it from its folder')
    files = load(FOLDER / 'model-index.yml')['Import']
    return {entry['Name']: entry for file in files for entry in load(FOLDER / file)['Models']}


def list_models(pattern: str | None = None, exclude_patterns: Sequence[str] = (),
                task: str | None = None) -> list[str]:
    """The names of this package's networks, which are those of their configs.

    Args:
        pattern (str, optional): a wildcard pattern that the names begin with, such as ``'*resnet50'``.
            Default: all.
        exclude_patterns (Sequence[str]): such patterns of names to leave out. Default: none.
        task (str, optional): what a network does: 'Image Classification', 'Object Detection', 'Instance
            Segmentation' or 'Panoptic Segmentation'. Default: anything.

    Returns:
        list[str]: sorted

    Raises:
        ValueError: ``task`` is none of the above.

    Example:
        >>> list_models('odconv4x-resnet*', exclude_patterns=['*18-', '*32-'])
        ['odconv4x-resnet18_8xb32_in1k', 'odconv4x-resnet50_8xb32_in1k']
    """
    tasks = sorted({name for entry in _index().values() for name in entry['Metadata']['Tasks']})
    if task is not None and task not in tasks:
        raise ValueError(f'task must be one of {tasks}, but is {task!r}')
    return sorted(name for name, entry in _index().items()
                  if (pattern is None or fnmatch.fnmatchcase(name, f'{pattern}*'))
                  and not any(fnmatch.fnmatchcase(name, f'{excluded}*') for excluded in exclude_patterns)
                  and (task is None or task in entry['Metadata']['Tasks']))


def get_model(model: str | PathLike | Config, pretrained: bool | str | PathLike = False,
              device: torch.device | str | None = None, **kwargs) -> nn.Module:
    """Build a network, in eval mode.

    It is what mmpretrain's and mmdet's APIs take: ``ImageClassificationInferencer(model)`` and
    ``mmdet.apis.inference_detector(model, image)``.

    Args:
        model (str | PathLike | Config): a name of :func:`list_models`, the path of a config file, or a config.
        pretrained (bool | str | PathLike): the path of a checkpoint, whose weights must be exactly the network's; or
            False for initial weights. Default: False.
        device (torch.device | str, optional): where to put it. Default: the CPU.
        **kwargs: settings of the config's ``model`` to change, such as ``backbone=dict(out_indices=(0, 1, 2, 3))``.

    Raises:
        ValueError: the name is not known; ``pretrained`` is True, as no weights are published; or the checkpoint is
            damaged, holds code or other weights.
        FileNotFoundError: there is no such config or checkpoint.
        TypeError: ``model`` is none of the above.
        ImportError: mmpretrain or mmdet, which the network is built on, is not installed.

    Example:
        >>> model = get_model('odconv1x-resnet18_8xb32_in1k', backbone=dict(out_indices=(2, 3)))
        >>> [tuple(maps.shape) for maps in model.extract_feat(torch.rand(1, 3, 64, 64))]
        [(1, 512)]
    """
    if pretrained is True:
        raise ValueError('pretrained=True needs published weights, and this package has none: train the network, or '
                         'convert a released checkpoint (docs/training.md, "Pre-trained weights"), and name the file, '
                         'pretrained="checkpoints/….pth"')
    config = _load_config(model)
    if kwargs:
        config.merge_from_dict(dict(model=kwargs))
    if config.get('data_preprocessor') is not None:  # where mmpretrain's configs have it
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        network = MODELS.build(config.model)
    if pretrained:
        state_dict = read_state_dict(pretrained)
        expected = {name: value for name, value in network.state_dict().items()
                    if name in state_dict or not name.endswith(BUFFERS)}
        check_fit(state_dict, expected, model if isinstance(model, str) else type(network).__name__)
        network.load_state_dict(state_dict, strict=False)
    if DefaultScope.get_current_instance() is None:  # in which mmdet's inference looks for the transforms of images
        init_default_scope(config.default_scope)
    # names under which mmdet's and mmpretrain's APIs look for these
    network.cfg = network._config = config
    network.dataset_meta = network._dataset_meta = _dataset_meta(config)
    return network.to(device).eval()


def _dataset_meta(config: Config) -> dict:
    """The names of the classes and the like of the data set that a config tests on."""
    dataset = config.get('test_dataloader', {}).get('dataset')
    if dataset is None:
        return {}
    with DATASETS.switch_scope_and_registry(config.default_scope) as registry:
        return {**getattr(registry.get(dataset.type), 'METAINFO', {}), **dataset.get('metainfo', {})}


def _load_config(model: str | PathLike | Config) -> Config:
    """The config of a network, to be changed at will."""
    if isinstance(model, Config):
        return copy.deepcopy(model)
    if not isinstance(model, (str, PathLike)):
        raise TypeError(f'model must be a name of dynconv_mm.list_models(), the path of a config or a Config, but is '
                        f'{model!r}')
    if Path(model).suffix == '.py':
        return Config.fromfile(model)
    name = str(model)
    if name not in _index():
        raise ValueError(f'there is no network {name!r}, dynconv_mm.list_models() lists all'
                         + did_you_mean(name, _index()))
    entry = _index()[name]
    scopes = {SCOPES.get(task, 'mmdet') for task in entry['Metadata']['Tasks']}
    for scope in scopes:
        import_optional(scope, name)
    return Config.fromfile(FOLDER / entry['Config'])

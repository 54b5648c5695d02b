"""Checkpoints of the official releases of ODConv, DCD, RedNet, KernelWarehouse, FDConv and SAN to checkpoints of this
package, and back.

The releases are of https://github.com/OSVAI/ODConv (classifiers and mmdet 2.x detectors),
https://github.com/liyunsheng13/dcd, https://github.com/d-li14/involution (MMClassification 0.x),
https://github.com/OSVAI/KernelWarehouse (classifiers, whose files hold an ``argparse.Namespace`` too),
https://github.com/Linwei-Chen/FDConv (mmdet 2.x detectors) and https://github.com/hszhao/SAN.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from numbers import Number
from typing import NamedTuple

import torch
from torch import Tensor

from .architecture import KW_CLASSIFIER_NAME, METHODS, Architecture, recognise
from .checkpoint_file import WRAPPERS, CheckpointError, check_fit, unwrap
from .convnext_names import convnext_modules, is_convnext, shape_gammas
from .expected_weights import expected_weights
from .fdconv_names import package_names, released_names
from .mobilenet_names import mobilenet_modules, rename
from .san_names import san_modules, san_modules_of

STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


class Conversion(NamedTuple):
    """A converted checkpoint.

    Attributes:
        checkpoint (dict): to be saved.
        architecture (Architecture): whose weights these are.
        remarks (tuple[str, ...]): what was left out or is worth knowing, a sentence each.
    """

    checkpoint: dict
    architecture: Architecture
    remarks: tuple[str, ...]


class Parts(NamedTuple):
    """The weights of a model, their names without the part's prefix."""

    backbone: dict[str, Tensor]
    classifier: dict[str, Tensor]
    detector: dict[str, Tensor]  # what is neither, by whole names


def from_released(checkpoint: Mapping, method: str = 'auto', backbone_only: bool = False) -> Conversion:
    """An official checkpoint as one of this package, which mmengine loads strictly.

    Names are those of mmpretrain's ``ImageClassifier`` or of mmdet's detector; ODConv's temperatures are 1, and those
    of KernelWarehouse 0, as in the original evaluation. The optimizer's state is left out; what else the file held
    beside the weights stays under ``meta``.

    Args:
        checkpoint (Mapping): what :func:`read_checkpoint` gives: the weights, or a dict of them and more.
        method (str): one of :data:`METHODS`, to refuse any other; 'auto' takes what it is. Default: 'auto'.
        backbone_only (bool): convert the backbone alone, without classifier or detector. Default: False.

    Raises:
        CheckpointError: the weights are of no released network or of another method, or some are missing, unexpected
            or of another shape.
        ImportError: a detector needs mmdet, DCD's classifier mmpretrain.
        ValueError: there is no such method.
    """
    weights, remarks = _weights(checkpoint)
    parts, classifier_name = _split(package_names(weights))
    if parts.detector and parts.classifier:  # which ODConv's detectors carry along
        remarks.append(f"the classifier of the detector's backbone was left out ({len(parts.classifier)} tensors)")
        parts.classifier.clear()
    if is_convnext(parts.backbone):
        backbone = shape_gammas(_rename(parts.backbone, convnext_modules()), released=False)
    else:
        modules = san_modules(parts.backbone) or mobilenet_modules(activations_count='conv.0.weight' in parts.backbone)
        backbone = _rename(parts.backbone, modules)
    architecture, converted = _checked(parts._replace(backbone=backbone), method, backbone_only)
    meta = _meta(checkpoint)
    meta['official'] = dict(fields=_fields(checkpoint), classifier=classifier_name)
    return Conversion(dict(meta=meta, state_dict=converted), architecture, tuple(remarks))


def to_released(checkpoint: Mapping, method: str = 'auto', backbone_only: bool = False) -> Conversion:
    """A checkpoint of this package under the official names, in the official wrapper.

    Args:
        checkpoint (Mapping): what mmengine saved, or :func:`from_released` made; of a run with ``EMAHook`` the
            averaged weights are taken, as mmengine loads them.
        method (str), backbone_only (bool): as of :func:`from_released`.

    Raises:
        CheckpointError, ImportError, ValueError: as :func:`from_released`.
    """
    weights, remarks = _weights(checkpoint)
    architecture, ours = _checked(_split(weights)[0], method, backbone_only)
    trained = _trained_temperature(architecture)
    temperatures = {float(value) for name, value in ours.items() if name.endswith('.temperature')} - {trained}
    if temperatures:
        values = ', '.join(f'{value:.4g}' for value in sorted(temperatures))
        remarks.append(f'the temperature is {values}, which official files do not hold: set it in the original code by '
                       'net_update_temperature')
    parts = _split({name: value for name, value in ours.items() if not name.endswith('.temperature')})[0]
    meta = _meta(checkpoint)
    origin = meta.pop('official', {})
    backbone = _rename(parts.backbone, {ours: theirs for theirs, ours in _released_modules(architecture).items()})
    if architecture.arch is not None:
        backbone = shape_gammas(backbone, released=True)
    if architecture.method == 'fdconv':
        backbone, moved = released_names(backbone)
        if moved:
            remarks.append(f'{moved} coefficients at the border between two groups are in the other one in the '
                           'original code, which does not store their order')
    if architecture.method in ('rednet', 'fdconv') or architecture.detector is not None:
        state_dict = {**{f'backbone.{name}': value for name, value in backbone.items()},
                      **{f'head.{name}': value for name, value in parts.classifier.items()}, **parts.detector}
        return Conversion(dict(meta=meta, state_dict=state_dict), architecture, tuple(remarks))
    classifier = {_released_classifier_name(name, architecture, origin.get('classifier')): value
                  for name, value in parts.classifier.items()}
    state_dict = {f'module.{name}': value for name, value in (*backbone.items(), *classifier.items())}
    fields = origin.get('fields') or dict(epoch=meta.get('epoch', 0), acc=0., best_acc=0.)
    if architecture.method == 'kw':
        state_dict = {**_as_released_cells(backbone, classifier), **{
            name: value for name, value in classifier.items() if 'warehouse_manager' not in name}}
        return Conversion(dict(origin.get('fields') or dict(epoch=meta.get('epoch', 0)), model=state_dict),
                          architecture, tuple(remarks))
    parameters = sum(not name.endswith(STATISTICS) for name in state_dict)
    # without momenta, but such that the official code, which restores the optimizer even to evaluate, takes it
    optimizer = dict(state={}, param_groups=[dict(params=list(range(parameters)))])
    return Conversion(dict(fields, state_dict=state_dict, optimizer=optimizer), architecture, tuple(remarks))


def _released_modules(architecture: Architecture) -> dict[str, str]:
    """The released modules' names to this package's, where they differ."""
    if architecture.method == 'san':
        return san_modules_of(architecture.depth)
    if architecture.arch is not None:
        return convnext_modules()
    return mobilenet_modules(architecture.method == 'dcd') if architecture.depth is None else {}


def _weights(checkpoint: Mapping) -> tuple[dict[str, Tensor], list[str]]:
    weights = unwrap(checkpoint)
    averages = [name for name in weights if re.fullmatch('ema_[^.]*', name)]  # mmcv 1.x kept both in one model
    remarks = [f'{name} was left out' for name in ('optimizer', 'ema_state_dict', 'model_ema', 'scaler', 'args')
               if name in checkpoint]
    if averages:
        remarks.append(f'the buffers of EMAHook were left out ({len(averages)} tensors)')
    return {name: value for name, value in weights.items() if name not in averages}, remarks


def _split(weights: Mapping[str, Tensor]) -> tuple[Parts, str | None]:
    """The parts of a model by official names or this package's, and what the classifier was called."""
    parts, classifier_name = Parts({}, {}, {}), None
    has_prefix = any(name.startswith('backbone.') for name in weights)
    for name, value in weights.items():
        place, _, rest = name.partition('.')
        if has_prefix and place not in ('backbone', 'head'):
            parts.detector[name] = value
        elif has_prefix and place == 'head':
            parts.classifier[rest] = value
        else:
            inner = rest if has_prefix else name
            match = re.fullmatch(r'(fc|head|classifier(?:\.\d+)?)\.(.+)', inner)
            if match is None:
                parts.backbone[inner] = value
            else:
                classifier_name, parameter = match.groups()
                cells, _, of_cells = parameter.partition('conv.')  # of KernelWarehouse
                if not cells and of_cells:
                    parameter = f'fc.{of_cells}'
                parts.classifier[f'fc.{parameter}' if parameter in ('weight', 'bias') else parameter] = value
    if any('.attention.' in name for name in parts.classifier):
        # the release has one manager, whose last warehouse is the classifier's
        for name in [name for name, value in parts.backbone.items() if _is_cells(name) and value.dim() == 4]:
            parts.classifier['fc.warehouse_manager.weights.0'] = parts.backbone.pop(name)
    if sum(map(len, parts)) < len(weights):
        raise CheckpointError('the weights have two classifiers')
    return parts, classifier_name


def _is_cells(name: str) -> bool:
    return name.startswith('warehouse_manager.weights.')


def _as_released_cells(backbone: Mapping[str, Tensor], classifier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's weights, and the cells of the classifier behind its own, as the release has one manager."""
    own = sum(map(_is_cells, backbone))
    cells = [value for name, value in classifier.items() if 'warehouse_manager' in name]
    return {**backbone, **{f'warehouse_manager.weights.{own + index}': value for index, value in enumerate(cells)}}


def _trained_temperature(architecture: Architecture) -> float:
    """That of an official checkpoint, which does not hold it."""
    return 0. if architecture.method == 'kw' else 1.


def _released_classifier_name(name: str, architecture: Architecture, module: str | None) -> str:
    """The official name of the classifier's parameter ``name``.

    ``module`` is what the official file called the classifier: that of DCD is ``classifier.1`` behind a dropout.
    """
    if architecture.arch is not None:
        return f'head.{name.partition(".")[2]}'
    if architecture.method == 'kw' and architecture.depth is None:
        name = name.partition('.')[2]
        return f'{KW_CLASSIFIER_NAME if "static_pointwise" in architecture.extra else "classifier"}.{name}'
    if architecture.method == 'dcd':
        return f'{module or "classifier.0"}.{name}'
    return f'{"classifier.1" if architecture.depth is None else "fc"}.{name.partition(".")[2]}'


def _rename(weights: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {rename(name, modules): value for name, value in weights.items()}
    if len(renamed) < len(weights):
        raise CheckpointError('the weights have modules twice, by their official names and by those of this package')
    return renamed


def _checked(parts: Parts, method: str, backbone_only: bool) -> tuple[Architecture, dict[str, Tensor]]:
    """Whose weights these are, and the weights by this package's names, complete."""
    if method not in ('auto', *METHODS):
        raise ValueError(f"method must be 'auto' or one of {METHODS}, but is {method!r}")
    architecture = recognise(parts.backbone)
    if method not in ('auto', architecture.method):
        raise CheckpointError(f'the weights are of {architecture.name}, whose method is {architecture.method!r}, not '
                              f'{method!r}')
    ours = {f'backbone.{name}': value for name, value in parts.backbone.items()}
    if not backbone_only:
        if not parts.detector and not parts.classifier:
            raise CheckpointError(f'the weights are of {architecture.name} without a classifier: ask for backbone_only '
                                  '(--backbone-only) if a detector is to start from them')
        ours.update({f'head.{name}': value for name, value in parts.classifier.items()})
        ours.update(parts.detector)
        detector = _detector(parts.detector) if parts.detector else None
        if detector is not None and architecture.method == 'static':
            raise CheckpointError("the weights are of a detector with a static MobileNetV2: only its classifier, with "
                                  'ODConv released for comparison, is converted')
        if detector is not None and architecture.arch is not None:
            raise CheckpointError(f'the weights are of a detector with {architecture.name}: only the classifier is '
                                  'converted')
        num_classes = _num_classes(ours, detector)
        architecture = replace(architecture, detector=detector, num_classes=num_classes)
    expected = expected_weights(architecture)
    for name in expected:
        if name.endswith('.temperature'):
            ours.setdefault(name, torch.tensor(_trained_temperature(architecture)))
    check_fit(ours, expected, architecture.name)
    return architecture, {name: ours[name] for name in expected}


def _detector(weights: Mapping[str, Tensor]) -> str:
    places = sorted({name.partition('.')[0] for name in weights})
    if not {'neck', 'rpn_head', 'roi_head'} >= set(places):
        raise CheckpointError('the weights are of neither a classifier nor a Faster or Mask R-CNN: beside a backbone '
                              f'they have {", ".join(places)}')
    return 'mask-rcnn' if any(name.startswith('roi_head.mask_head.') for name in weights) else 'faster-rcnn'


def _num_classes(weights: Mapping[str, Tensor], detector: str | None) -> int:
    """Of the first classifier found; :func:`check_fit` says what does not go with it."""
    modules = ('head.fc', 'head.cls') if detector is None else ('roi_head.bbox_head.fc_cls', )
    names = [f'{module}.{parameter}' for module in modules for parameter in ('weight', 'bias')]
    rows = next((len(weights[name]) for name in names if name in weights and weights[name].dim()), 0)
    return max(rows - (detector is not None), 1)  # the detectors' last class is the background


def _meta(checkpoint: Mapping) -> dict:
    """A copy of what OpenMMLab's checkpoints say about themselves."""
    meta = checkpoint.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}


def _fields(checkpoint: Mapping) -> dict:
    """Epoch, accuracy and the like, which an official file has beside its weights."""
    return {name: value for name, value in checkpoint.items()
            if name not in WRAPPERS and (isinstance(value, (Number, str))
                                         or isinstance(value, Tensor) and value.dim() == 0)}

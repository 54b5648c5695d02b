"""Networks for other runtimes: as an ONNX graph, or as a program of ``torch.export``."""
from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..atomic_write import atomic_write
from ..eval_mode import eval_mode

FORMATS = ('onnx', 'torch-export')
EXPORTERS = ('torchscript', 'dynamo')  # torch's two ways to write ONNX
OPSETS = {'torchscript': 17, 'dynamo': 18}  # what torch 2.1 and current torch write without conversion
TOLERANCE = 1e-4  # relative to the largest value of an output
HEAD_OUTPUTS = ('cls_score', 'bbox_pred', 'centerness')  # what mmdet's dense heads put out, a map for each level


class ExportError(ValueError):
    """A network, an option or an environment with which nothing can be exported."""


class Export(NamedTuple):
    """What was written."""

    path: Path
    format: str
    opset: int | None  # of ONNX
    outputs: tuple[str, ...]
    size: int  # bytes
    difference: float  # from PyTorch's outputs, the largest, relative to the largest value of the output


class Exportable(nn.Module):
    """A network as a function from images to named tensors, without pre- and postprocessing.

    - classifiers (mmpretrain): ``logits``;
    - one-stage detectors (mmdet): ``cls_score_<level>`` and ``bbox_pred_<level>``, as the dense head puts them out,
      before decoding and NMS;
    - two-stage detectors: ``feature_<level>`` of the neck, and ``rpn_cls_score_<level>`` and
      ``rpn_bbox_pred_<level>``. Proposals, RoIAlign and what follows them depend on the data and are not exported.
      PanopticFPN's semantic segmentation is, as ``seg_logits``;
    - any other network that returns a tensor or a tuple of them, such as a backbone: ``feature_<index>``.

    Args:
        network (nn.Module): what to export.
        part (str): 'model', or 'backbone' for that of a classifier or detector alone. Default: 'model'.

    Shape:
        input Tensor[batch, 3, height, width], normalised as by the network's data preprocessor; output a tuple of
        tensors.

    Raises:
        ExportError: ``part`` is neither of the two, or there is no backbone.
    """

    def __init__(self, network: nn.Module, part: str = 'model') -> None:
        super().__init__()
        if part not in ('model', 'backbone'):
            raise ExportError(f"part must be 'model' or 'backbone', but is {part!r}")
        if part == 'backbone':
            if not hasattr(network, 'backbone'):
                raise ExportError(f"part='backbone' needs a network with a backbone, and {type(network).__name__} has "
                                  'none')
            network = network.backbone
        self.network = network

    def named_outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        network = self.network
        if not hasattr(network, 'extract_feat'):
            features = network(images)
            return _levels('feature', (features, ) if isinstance(features, Tensor) else features)
        features = network.extract_feat(images)
        if hasattr(network, 'rpn_head'):
            outputs = {**_levels('feature', features), **_head_outputs(network.rpn_head, features, 'rpn_')}
            if getattr(network, 'semantic_head', None) is not None:
                outputs['seg_logits'] = network.semantic_head(features)['seg_preds']
            return outputs
        if hasattr(network, 'bbox_head'):
            return _head_outputs(network.bbox_head, features, '')
        if getattr(network, 'head', None) is not None:
            return dict(logits=network.head(features))
        return _levels('feature', features)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named_outputs(images).values())


def _levels(name: str, maps: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {f'{name}_{level}': values for level, values in enumerate(maps)}


def _head_outputs(head: nn.Module, features: tuple[Tensor, ...], prefix: str) -> dict[str, Tensor]:
    outputs = {}
    for name, maps in zip(HEAD_OUTPUTS, head(features)):
        outputs.update(_levels(f'{prefix}{name}', maps))
    return outputs


def export(network: nn.Module,
           path: str | Path,
           *,
           format: str = 'onnx',
           part: str = 'model',
           input_size: tuple[int, int] = (224, 224),
           in_channels: int | None = None,
           dynamic: bool = False,
           exporter: str = 'torchscript',
           progress: Callable[[str], None] = lambda step: None) -> Export:
    """Write a network to a file that runs without this package, and compare what it computes with PyTorch.

    Layers execute by ``dynconv_mm.functional.backends.graph`` in it: plain convolutions, matrix products and slices,
    which depend on neither the batch's size nor the images'. It is exported as in eval mode, in its parameters'
    precision.

    Args:
        network (nn.Module): a classifier, a detector, a backbone or a layer, on the CPU; see :class:`Exportable`.
        path (str | Path): the file, written whole or not at all.
        format (str): 'onnx', or 'torch-export' (torch ≥ 2.7), which ``torch.export.load`` reads.
        part (str): 'model' or 'backbone'.
        input_size (tuple[int, int]): height and width of the images. Default: (224, 224).
        in_channels (int, optional): channels of the images. Default: those that the first convolution takes.
        dynamic (bool): whether the file takes batches and images of other sizes too. Else it takes one image of
            ``input_size``. Default: False.
        exporter (str): how ONNX is written: 'torchscript' (seconds, any torch) or 'dynamo' (minutes, torch ≥ 2.7;
            fewer nodes). Default: 'torchscript'.
        progress: called with a line before each step.

    Returns:
        Export

    Raises:
        ExportError: an argument is not one of the above, the network does not take images of that size, or its
            outputs are not finite or differ from the file's by more than :data:`TOLERANCE`.
        ImportError: ``onnx`` or ``onnxruntime`` is not installed (with 'dynamo', ``onnxscript``).
    """
    _check(format, input_size, exporter)
    if format == 'onnx':
        for package in ('onnx', 'onnxruntime', *(['onnxscript'] if exporter == 'dynamo' else [])):
            _import(package)
    exportable = Exportable(network, part)
    with _frozen(exportable):
        channels = _in_channels(exportable) if in_channels is None else in_channels
        images = torch.randn(2 if dynamic else 1, channels, *input_size)
        progress(f'running the network on {_shape(images)}')
        try:
            names = tuple(exportable.named_outputs(images))
        except (RuntimeError, ValueError) as error:
            raise ExportError(f'the network does not take images of {input_size[0]}×{input_size[1]}: '
                              f'{error}') from error
        opset = OPSETS[exporter] if format == 'onnx' else None
        with atomic_write(path) as partial:
            progress(f'writing {format}' + (f', opset {opset}, by the {exporter} exporter' if opset else ''))
            if format == 'onnx':
                _write_onnx(exportable, images, partial, names, dynamic, exporter)
                _annotate(partial, network)
            else:
                _write_program(exportable, images, partial, dynamic)
            checked = [images]
            if dynamic:
                checked.append(torch.randn(3, channels, *(size + 32 for size in input_size)))
                checked.append(torch.randn(1, channels, input_size[0], input_size[1] + 32))
            progress('comparing with PyTorch on ' + ', '.join(map(_shape, checked)))
            run = _load_onnx(partial) if format == 'onnx' else _load_program(partial)
            difference = max(largest_difference(exportable, run, batch) for batch in checked)
            if not difference <= TOLERANCE:
                raise ExportError(f"the exported network's outputs differ from PyTorch's by {difference:.1e} of the "
                                  f'largest value, more than {TOLERANCE:.0e}; nothing was written')
            size = partial.stat().st_size
    return Export(Path(path), format, opset, names, size, difference)


def largest_difference(network: nn.Module, run: Callable[[Tensor], list[Tensor]], images: Tensor) -> float:
    """How far the outputs of ``run`` are from the network's, relative to the largest value of each output.

    Raises:
        ExportError: the network's are not finite.
    """
    with torch.no_grad():
        expected = network(images)
    if not all(output.isfinite().all() for output in expected):
        raise ExportError("the network's outputs are not finite, so nothing can be compared; use trained weights")
    actual = run(images)
    differences = [float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=torch.finfo(theirs.dtype).tiny))
                   if ours.shape == theirs.shape else float('inf') for ours, theirs in zip(actual, expected)]
    return max(differences) if len(actual) == len(expected) else float('inf')


def _check(format: str, input_size: tuple[int, int], exporter: str) -> None:
    if format not in FORMATS:
        raise ExportError(f'format must be one of {FORMATS}, but is {format!r}')
    if exporter not in EXPORTERS:
        raise ExportError(f'exporter must be one of {EXPORTERS}, but is {exporter!r}')
    if len(input_size) != 2 or any(isinstance(size, bool) or not isinstance(size, int) or size < 1
                                   for size in input_size):
        raise ExportError(f'input_size must be two positive ints, height and width, but is {input_size!r}')
    if (format == 'torch-export' or exporter == 'dynamo') and not hasattr(torch.compiler, 'is_exporting'):
        what = "format='torch-export'" if format == 'torch-export' else "exporter='dynamo'"
        raise ExportError(f"{what} needs torch ≥ 2.7, and {torch.__version__} is installed; use format='onnx' with "
                          "exporter='torchscript'")


def _import(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(f'exporting to ONNX needs {error.name}, which is not installed: `pip install onnx '
                          'onnxruntime onnxscript`') from error


def _in_channels(network: nn.Module) -> int:
    """What the first convolution takes."""
    return next((module.in_channels for module in network.modules() if hasattr(module, 'in_channels')), 3)


def _shape(images: Tensor) -> str:
    batch, _, height, width = images.shape
    return f'{batch} image{"s" if batch > 1 else ""} of {height}×{width}'


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """In eval mode, no parameter with a gradient, which torch's TorchScript exporter cannot write under another name
    than that of a state dict."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in learned:
            parameter.requires_grad = False
        with eval_mode(network), torch.no_grad():
            yield
    finally:
        for parameter in learned:
            parameter.requires_grad = True


def _dynamic_shapes() -> tuple[dict]:
    return ({dim: torch.export.Dim.DYNAMIC for dim in (0, 2, 3)}, )


def _write_onnx(network: nn.Module, images: Tensor, path: Path, names: tuple[str, ...], dynamic: bool,
                exporter: str) -> None:
    options = dict(opset_version=OPSETS[exporter], input_names=['images'], output_names=list(names))
    if exporter == 'dynamo':
        options.update(dynamo=True, external_data=False, verbose=False,
                       dynamic_shapes=_dynamic_shapes() if dynamic else None)
    else:
        if hasattr(torch.compiler, 'is_exporting'):  # torch ≥ 2.7 has to be asked for the former exporter
            options.update(dynamo=False)
        if dynamic:
            maps = {0: 'batch', 2: 'height', 3: 'width'}
            shapes = {name: {dim: f'{name}_{kind}' if dim else kind for dim, kind in maps.items()} for name in names
                      if name != 'logits'}
            options.update(dynamic_axes={'images': maps, 'logits': {0: 'batch'}, **shapes})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of checks of shapes, which are traced as passed, and of deprecation
        torch.onnx.export(network, (images, ), str(path), **options)


def _annotate(path: Path, network: nn.Module) -> None:
    """Write into the graph's metadata how images are to be normalised."""
    onnx = import_module('onnx')
    graph = onnx.load(str(path))
    preprocessor = getattr(network, 'data_preprocessor', None)
    notes = {name: ' '.join(f'{value:g}' for value in getattr(preprocessor, name).flatten().tolist())
             for name in ('mean', 'std') if isinstance(getattr(preprocessor, name, None), Tensor)}
    if notes:
        in_rgb = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
        onnx.helper.set_model_props(graph, {**notes, 'channels': 'RGB' if in_rgb else 'BGR'})
        onnx.save(graph, str(path))


def _load_onnx(path: Path) -> Callable[[Tensor], list[Tensor]]:
    onnxruntime = import_module('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]


def _write_program(network: nn.Module, images: Tensor, path: Path, dynamic: bool) -> None:
    program = torch.export.export(network, (images, ), dynamic_shapes=_dynamic_shapes() if dynamic else None,
                                  strict=False)
    torch.export.save(program, str(path))


def _load_program(path: Path) -> Callable[[Tensor], list[Tensor]]:
    program = torch.export.load(str(path)).module()
    return lambda images: list(program(images))

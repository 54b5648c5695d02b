"""Networks for other runtimes: as an ONNX graph, or as a program of ``torch.export``."""
from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..atomic_write import atomic_write
from ..eval_mode import eval_mode
from ..functional.operator import Target, export_for
from .onnx_graph import loop_over_images, shorten
from .settle_norms import calm_attentions, random_images, settle_norms
from .static_counterpart import dynamic_layers, layers_without_static

FORMATS = ('onnx', 'torch-export')
EXPORTERS = ('torchscript', 'dynamo')  # torch's two ways to write ONNX
OPSETS = {'torchscript': 17, 'dynamo': 18}  # what torch 2.1 and current torch write without conversion, and the least
RUNTIMES = ('onnxruntime', 'openvino')
TOLERANCE = 1e-4  # relative to the largest value of an output
LEAST_SPREAD = 10 * TOLERANCE  # by how much outputs have to vary for a comparison to mean something
SETTLED_BY = 8, 128  # images, and pixels of their sides at most
ROUNDING = 4  # how many times PyTorch's own distance from float64 a file may have beyond TOLERANCE
LOOSEST = 1e-2  # what it may differ then: weights that magnify rounding further say nothing
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
           batch: int = 1,
           dynamic: bool = False,
           runtime: str = 'onnxruntime',
           opset: int | None = None,
           exporter: str = 'torchscript',
           settle: bool = False,
           progress: Callable[[str], None] = lambda step: None) -> Export:
    """Write a network to a file that runs without this package, and compare what it computes with PyTorch.

    Layers execute by ``dynconv_mm.functional.backends.exported`` in an ONNX graph: each image has its kernels, and
    ordinary convolutions by them; a loop runs several images in turn. In a program of ``torch.export`` they execute by
    ``dynconv_mm.functional.backends.graph``. It is exported as in eval mode.

    Args:
        network (nn.Module): a classifier, a detector, a backbone or a layer, in float32 on the CPU; see
            :class:`Exportable`.
        path (str | Path): the file, written whole or not at all.
        format (str): 'onnx', or 'torch-export' (torch ≥ 2.7), which ``torch.export.load`` reads.
        part (str): 'model' or 'backbone'.
        input_size (tuple[int, int]): height and width of the images. Default: (224, 224).
        in_channels (int, optional): channels of the images. Default: those that the first convolution takes.
        batch (int): how many images the file takes. Default: 1.
        dynamic (bool): whether the file takes batches and images of other sizes too. Default: False.
        runtime (str): which is to run an ONNX graph fast, and is what the graph is checked in: 'onnxruntime' or
            'openvino'. Others run it too. Default: 'onnxruntime'.
        opset (int, optional): of ONNX. Default: that in :data:`OPSETS`, which is the least.
        exporter (str): how ONNX is written: 'torchscript' (seconds, any torch) or 'dynamo' (minutes, torch ≥ 2.7).
            Default: 'torchscript'.
        settle (bool): whether to calm attentions and to give batch norms the statistics of random images first, see
            :func:`~dynconv_mm.conversion.settle_norms.settle_norms`: for a network that has learned nothing, and that
            keeps both. Default: False.
        progress: called with a line before each step.

    Returns:
        Export

    Raises:
        ExportError: an argument is not one of the above, the network does not take images of that size, its outputs
            are not finite or do not depend on the images, so that nothing can be compared, or they differ from the
            file's by more than :data:`TOLERANCE`: where the weights magnify rounding, by more than :data:`ROUNDING`
            times what PyTorch's differ from float64, or than :data:`LOOSEST`.
        ImportError: ``onnx`` or ``onnxruntime`` is not installed (with 'dynamo', ``onnxscript``; with 'openvino',
            that).
    """
    _check(format, input_size, batch, dynamic, runtime, opset, exporter)
    if format == 'onnx':
        for package in dict.fromkeys(('onnx', 'onnxruntime', *(['onnxscript'] if exporter == 'dynamo' else []),
                                      runtime)):
            import_runtime(package)
    if Path(path).is_dir():
        raise ExportError(f'path must be a file to write, but {path} is a folder')
    exportable = Exportable(network, part)
    others = {str(parameter.dtype) for parameter in exportable.parameters() if parameter.dtype != torch.float32}
    if others:
        raise ExportError(f'network must be in float32, but has parameters of {", ".join(sorted(others))}: call '
                          'network.float() first')
    with _frozen(exportable):
        channels = _in_channels(exportable) if in_channels is None else in_channels
        images = random_images(2 if dynamic else batch, channels, *input_size)
        loops = (dynamic or batch > 1) and bool(dynamic_layers(exportable) or layers_without_static(exportable))
        try:
            if settle:
                calm_attentions(exportable)
                smaller = random_images(SETTLED_BY[0], channels, *(min(size, SETTLED_BY[1]) for size in input_size))
                progress(f'settling {settle_norms(exportable, smaller)} norms on {_shape(smaller)}')
            progress(f'running the network on {_shape(images)}')
            names = tuple(exportable.named_outputs(images))
        except (RuntimeError, ValueError) as error:
            raise ExportError(f'the network does not take images of {input_size[0]}×{input_size[1]}: '
                              f'{error}') from error
        if format == 'onnx':
            opset = OPSETS[exporter] if opset is None else opset
        with atomic_write(path) as partial:
            progress(f'writing {format}' + (f', opset {opset}, by the {exporter} exporter' if opset else ''))
            if format == 'onnx':
                traced = images[:1] if loops else images
                _write_onnx(exportable, traced, partial, names, Target(runtime, dynamic), opset, exporter)
                shorten(partial)
                _complete(partial, network, None if not loops else 'batch' if dynamic else batch)
            else:
                _write_program(exportable, images, partial, dynamic)
            checked = [images, random_images(len(images), channels, *input_size, seed=1)]
            if dynamic:
                checked.append(random_images(3, channels, *(size + 32 for size in input_size)))
                checked.append(random_images(1, channels, input_size[0], input_size[1] + 32))
            progress('comparing with PyTorch on ' + ', '.join(map(_shape, checked)))
            run = load_onnx(partial, runtime) if format == 'onnx' else _load_program(partial)
            difference = _compare(exportable, run, checked, names)
            size = partial.stat().st_size
    return Export(Path(path), format, opset, names, size, difference)


def _compare(network: nn.Module, run: Callable[[Tensor], list[Tensor]], batches: list[Tensor],
             names: tuple[str, ...]) -> float:
    """The largest difference, if it is no more than rounding makes it.

    Raises:
        ExportError: it is more, or the network's outputs say nothing of the file's.
    """
    expected = [network(images) for images in batches]
    if not all(output.isfinite().all() for outputs in expected for output in outputs):
        raise ExportError("the network's outputs are not finite, so nothing can be compared; use trained weights, or "
                          'settle=True where it has learned nothing')
    spreads = [_difference(first[:1], second[:1]) for first, second in zip(*expected[:2])]
    constant = [name for name, spread in zip(names, spreads) if spread < LEAST_SPREAD]
    if constant:
        raise ExportError(f'the outputs {", ".join(constant)} are the same for different images, so comparing '
                          'them would prove nothing; use trained weights, or settle=True where it has learned nothing')
    actual = [run(images) for images in batches]
    difference = largest_difference(actual, expected)
    if difference <= TOLERANCE:
        return difference
    exact = copy.deepcopy(network).double()
    exact = [exact(images.double()) for images in batches]
    own, theirs = (largest_difference(outputs, exact) for outputs in (expected, actual))
    if not (difference <= LOOSEST and theirs <= ROUNDING * own and theirs <= min(spreads) / 10):
        raise ExportError(f"the exported network's outputs differ from PyTorch's by {difference:.1e} of the largest "
                          f'value, more than {TOLERANCE:.0e}, and from those of float64 by {theirs:.1e}, from which '
                          f"PyTorch's differ by {own:.1e}; nothing was written. Where the latter is large too, the "
                          'weights magnify rounding: use trained ones')
    return difference


def largest_difference(actual: list[list[Tensor]], expected: list[list[Tensor]]) -> float:
    """How far outputs are from others, batch by batch, relative to the largest value of each output."""
    return max(max(map(_difference, ours, theirs)) if len(ours) == len(theirs) else float('inf')
               for ours, theirs in zip(actual, expected))


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float('inf')
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=torch.finfo(theirs.dtype).tiny))


def _check(format: str, input_size: tuple[int, int], batch: int, dynamic: bool, runtime: str, opset: int | None,
           exporter: str) -> None:
    for name, value, known in (('format', format, FORMATS), ('exporter', exporter, EXPORTERS),
                               ('runtime', runtime, RUNTIMES)):
        if value not in known:
            raise ExportError(f'{name} must be one of {known}, but is {value!r}')
    if not isinstance(input_size, Sequence) or len(input_size) != 2 \
            or not all(_is_positive_int(size) for size in input_size):
        raise ExportError(f'input_size must be two positive ints, height and width, but is {input_size!r}')
    if not _is_positive_int(batch):
        raise ExportError(f'batch must be a positive int, but is {batch!r}')
    if format == 'torch-export' and runtime != 'onnxruntime':
        raise ExportError("runtime must be left out with format='torch-export', which PyTorch runs, but is "
                          f'{runtime!r}')
    if dynamic and batch != 1:
        raise ExportError(f'batch must be left out with dynamic=True, which takes any, but is {batch}')
    if opset is not None and (format != 'onnx' or not _is_positive_int(opset) or opset < OPSETS[exporter]):
        raise ExportError(f"opset must be at least {OPSETS[exporter]} with exporter={exporter!r} and left out with "
                          f"format='torch-export', but is {opset!r}")
    if (format == 'torch-export' or exporter == 'dynamo') and not hasattr(torch.compiler, 'is_exporting'):
        what = "format='torch-export'" if format == 'torch-export' else "exporter='dynamo'"
        raise ExportError(f"{what} needs torch ≥ 2.7, and {torch.__version__} is installed; use format='onnx' with "
                          "exporter='torchscript'")


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def import_runtime(package: str) -> ModuleType:
    """A package that writes or runs ONNX graphs.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        packages = 'openvino' if package == 'openvino' else 'onnx onnxruntime onnxscript'
        raise ImportError(f'exporting to ONNX, or running what was exported, needs {error.name}, which is not '
                          f'installed: `pip install {packages}`') from error


def _in_channels(network: nn.Module) -> int:
    """What the first convolution takes; other modules count channels under that name."""
    return next((module.in_channels for module in network.modules()
                 if hasattr(module, 'in_channels') and hasattr(module, 'kernel_size')), 3)


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


def _dynamic_shapes(one_image: bool = False) -> tuple[dict]:
    return ({dim: torch.export.Dim.DYNAMIC for dim in ((2, 3) if one_image else (0, 2, 3))}, )


def _write_onnx(network: nn.Module, images: Tensor, path: Path, names: tuple[str, ...], target: Target, opset: int,
                exporter: str) -> None:
    """The graph as the exporter writes it: of one image, if ``images`` are one."""
    one = len(images) == 1
    options = dict(opset_version=opset, input_names=['images'], output_names=list(names))
    if exporter == 'dynamo':
        options.update(dynamo=True, external_data=False, verbose=False,
                       dynamic_shapes=_dynamic_shapes(one) if target.any_size else None)
    else:
        if hasattr(torch.compiler, 'is_exporting'):  # torch ≥ 2.7 has to be asked for the former exporter
            options.update(dynamo=False)
        if target.any_size:
            batch = {} if one else {0: 'batch'}
            shapes = {name: {**batch, 2: f'{name}_height', 3: f'{name}_width'} for name in names if name != 'logits'}
            options.update(dynamic_axes={'images': {**batch, 2: 'height', 3: 'width'}, 'logits': batch, **shapes})
    token = export_for.set(target if one else None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of checks of shapes, which are traced as passed, and of deprecation
            torch.onnx.export(network, (images, ), str(path), **options)
    except (ValueError, RuntimeError) as error:  # of one type or the other, by the version of torch
        if 'Unsupported' in str(error) and 'opset' in str(error):
            raise ExportError(f'opset must be one that torch {torch.__version__} writes by exporter={exporter!r}, but '
                              f'is {opset}: {error}') from error
        raise
    finally:
        export_for.reset(token)


def _complete(path: Path, network: nn.Module, batch: int | str | None) -> None:
    """Put a loop around the graph of one image, if ``batch`` says of how many, and write into the metadata how images
    are to be normalised."""
    onnx = import_module('onnx')
    graph = onnx.load(str(path))
    if batch is not None:
        graph = loop_over_images(graph, batch)
    preprocessor = getattr(network, 'data_preprocessor', None)
    notes = {name: ' '.join(f'{value:g}' for value in getattr(preprocessor, name).flatten().tolist())
             for name in ('mean', 'std') if isinstance(getattr(preprocessor, name, None), Tensor)}
    if notes:
        in_rgb = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
        onnx.helper.set_model_props(graph, {**notes, 'channels': 'RGB' if in_rgb else 'BGR'})
    onnx.save(graph, str(path))


def load_onnx(path: str | Path, runtime: str = 'onnxruntime', threads: int = 0) -> Callable[[Tensor], list[Tensor]]:
    """An ONNX graph as a function of images, in float32 on the CPU.

    Args:
        path (str | Path): its file.
        runtime (str): which runs it, one of :data:`RUNTIMES`.
        threads (int): how many it uses; 0 leaves that to it. Default: 0.

    Raises:
        ExportError: the runtime does not read it.
        ImportError: the runtime is not installed.
    """
    package = import_runtime(runtime)
    try:
        return (_load_openvino if runtime == 'openvino' else _load_onnxruntime)(package, str(path), threads)
    except Exception as error:  # of classes of the runtime's own
        raise ExportError(f'runtime {runtime!r} {package.__version__} does not read the graph: install a newer one, or '
                          f'set opset to a lower one: {error}') from error


def _load_onnxruntime(onnxruntime: ModuleType, path: str, threads: int) -> Callable[[Tensor], list[Tensor]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {'images': images.numpy()})]


def _load_openvino(openvino: ModuleType, path: str, threads: int) -> Callable[[Tensor], list[Tensor]]:
    # on a processor that has bfloat16 it would compute in that
    options = dict(INFERENCE_PRECISION_HINT='f32', PERFORMANCE_HINT='LATENCY', INFERENCE_NUM_THREADS=threads)
    model = openvino.Core().compile_model(path, 'CPU', options)
    return lambda images: [torch.from_numpy(output.copy()) for output in model([images.numpy()]).values()]


def _write_program(network: nn.Module, images: Tensor, path: Path, dynamic: bool) -> None:
    program = torch.export.export(network, (images, ), dynamic_shapes=_dynamic_shapes() if dynamic else None,
                                  strict=False)
    torch.export.save(program, str(path))


def _load_program(path: Path) -> Callable[[Tensor], list[Tensor]]:
    program = torch.export.load(str(path)).module()
    return lambda images: list(program(images))

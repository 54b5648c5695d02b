"""Exported networks in INT8: the convolutions by constant kernels are quantised, what makes kernels stays in float."""
from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..atomic_write import atomic_write
from .export import ExportError, import_runtime, largest_difference
from .onnx_graph import graph_of_one_image, with_graph_of_one_image

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

POOLS = ('GlobalAveragePool', 'ReduceMean')  # what attentions begin with, or a constant matrix times a map
PRODUCTS = ('Conv', 'Gemm', 'MatMul', 'Mul', 'Einsum')


class Quantized(NamedTuple):
    """What was written."""

    path: Path
    convolutions: int  # that are quantised
    left_out: tuple[str, ...]  # names of the nodes that are not, see :func:`dynamic_nodes`
    size: int  # bytes


def quantize(source: str | Path, path: str | Path, images: Iterable[Tensor]) -> Quantized:
    """Write an exported network in INT8, for ONNX Runtime and OpenVINO.

    Weights are quantised by output channel (signed), activations by tensor (unsigned), with the ranges that they have
    on images: the QDQ format of ONNX. The nodes of :func:`dynamic_nodes` are left out.

    Args:
        source (str | Path): an ONNX graph that :func:`~dynconv_mm.conversion.export.export` wrote.
        path (str | Path): the file, written whole or not at all.
        images (Iterable[Tensor]): what the network will see, normalised, each in the shape that the graph takes; 32 or
            more that differ.

    Returns:
        Quantized

    Raises:
        ExportError: ``source`` is no ONNX graph of one input, ``images`` are none or do not fit it, or ``path`` is
            ``source`` or a folder.
        FileNotFoundError: there is no ``source``.
        ImportError: ``onnx`` or ``onnxruntime`` is not installed.
    """
    onnx, quantization = import_runtime('onnx'), import_runtime('onnxruntime.quantization')
    source, path = Path(source), Path(path)
    if path.is_dir() or path.exists() and source.exists() and path.samefile(source):
        raise ExportError(f'path must be a file to write, other than source, but is {path}')
    model = _read(onnx, source)
    images = [_checked(image, model) for image in images]
    network = graph_of_one_image(model) or model
    if network is not model:
        images = [image for batch in images for image in batch.split(1)]
    for index, node in enumerate(network.graph.node):
        node.name = node.name or f'node_{index}'  # by which it is left out
    left_out = tuple(node.name for node in dynamic_nodes(network))
    if not images:
        raise ExportError('images must hold some on which ranges are measured, but there are none')
    with atomic_write(path) as partial, _quiet():
        quantization.quantize_static(
            network, str(partial), _Reader(quantization, network.graph.input[0].name, images),
            quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=list(left_out))
        quantized = onnx.load(str(partial))
        nodes = quantized.graph.node
        dequantized = {name for node in nodes if node.op_type == 'DequantizeLinear' for name in node.output}
        convolutions = sum(node.op_type == 'Conv' and dequantized.issuperset(node.input[:2]) for node in nodes)
        if network is not model:
            with_graph_of_one_image(model, quantized)
            onnx.save(model, str(partial))
        size = partial.stat().st_size
    return Quantized(path, convolutions, left_out, size)


def dynamic_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes of a graph that multiply two computed values, as a convolution by a kernel that the graph makes, and
    those that make attentions or kernels for them from averages of maps.

    In eight bits the former would round a kernel that is another one for each image with the range of all of them; the
    latter are no work that would get faster.

    Args:
        model (ModelProto): a graph.

    Returns:
        list[NodeProto]
    """
    nodes = list(model.graph.node)
    constant = {tensor.name for tensor in model.graph.initializer}
    constant.update(name for node in nodes if node.op_type == 'Constant' for name in node.output)
    averages: set[str] = set()  # what is computed from averages alone
    products = []
    for node in nodes:
        computed = [name for name in node.input if name and name not in constant]
        averages_maps = node.op_type in POOLS or node.op_type == 'MatMul' and node.input[0] in constant
        if averages_maps or computed and averages.issuperset(computed):
            averages.update(node.output)
        both = node.op_type in PRODUCTS and not constant.intersection(node.input[:2])
        if both:
            products.append(node)
    found = [*products]
    needed = {name for node in products for name in node.input} & averages
    for node in reversed(nodes):
        if needed.intersection(node.output) and node not in products:
            found.append(node)
            needed.update(averages.intersection(node.input))
    return found


def _read(onnx, source: Path) -> ModelProto:
    if not source.is_file():
        raise FileNotFoundError(f'there is no graph {str(source)!r}')
    try:
        model = onnx.load(str(source))
        onnx.checker.check_model(model)
    except Exception as error:  # of protobuf's own classes
        raise ExportError(f'source must be an ONNX graph, as export writes, but {source} is not: {error}') from error
    if len(model.graph.input) != 1:
        raise ExportError(f'source must take images alone, but {source} has {len(model.graph.input)} inputs')
    return model


def _checked(images: Tensor, model: ModelProto) -> Tensor:
    """Images, if the graph takes them."""
    taken = [dim.dim_value or None for dim in model.graph.input[0].type.tensor_type.shape.dim]
    fits = images.dim() == len(taken) and all(size in (None, actual) for size, actual in zip(taken, images.shape))
    if not fits:
        raise ExportError(f'images must have the shape that the graph takes, {[size or "any" for size in taken]}, but '
                          f'have {list(images.shape)}')
    return images


def _Reader(quantization, name: str, images: list[Tensor]):
    """What hands out images to ONNX Runtime, whose base class it needs."""

    class Reader(quantization.CalibrationDataReader):
        """One batch after another, then None."""

        batches = iter(images)

        def get_next(self) -> dict | None:
            image = next(self.batches, None)
            return None if image is None else {name: image.detach().cpu().float().numpy()}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without ONNX Runtime's advice to rewrite the graph first, which ``onnx_graph`` has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Agreement(NamedTuple):
    """How a quantised network compares with the float one."""

    top1: float | None  # the share of images with the same largest value of the only output; None if there are more
    difference: float  # of the outputs, the largest, relative to the largest value of the output
    mean_difference: float  # of all values, relative to the mean absolute value


def compare(expected: Callable[[Tensor], list[Tensor]], actual: Callable[[Tensor], list[Tensor]],
            images: Iterable[Tensor]) -> Agreement:
    """Compare what two graphs put out.

    Args:
        expected, actual (Callable): of the float and of the quantised graph, as
            :func:`~dynconv_mm.conversion.export.load_onnx` returns them.
        images (Iterable[Tensor]): at least one batch, best of others than it was quantised with.

    Returns:
        Agreement
    """
    pairs = [(expected(batch), actual(batch)) for batch in images]
    ours, theirs = ([torch.cat(batches) for batches in zip(*side)] for side in zip(*pairs))
    outputs = list(zip(ours, theirs))
    top1 = None
    if len(outputs) == 1 and outputs[0][0].dim() == 2:
        exact, rounded = outputs[0]
        top1 = (exact.argmax(1) == rounded.argmax(1)).float().mean().item()
    return Agreement(top1, largest_difference([theirs], [ours]),
                     max(float((a - b).abs().mean() / a.abs().mean()) for a, b in outputs))

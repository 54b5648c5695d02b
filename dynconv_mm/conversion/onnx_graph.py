"""An exported ONNX graph made short, constants folded and norms in what stands before them, and a loop around it.

What ONNX Runtime's optimizer does by itself, in standard operators and for any machine, is left to it.
"""
from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


def shorten(path: Path) -> None:
    """Rewrite the graph in a file, as the exporter wrote it, in place.

    Args:
        path (Path): the file.
    """
    onnx = import_module('onnx')
    model = onnx.load(str(path))
    opset = next(opset.version for opset in model.opset_import if opset.domain in ('', 'ai.onnx'))
    model = optimize(model, path)
    if fold_norms(model):
        model = optimize(model, path)
    del model.graph.value_info[:], model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid('', opset))  # ONNX Runtime writes all that it knows of
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def optimize(model: ModelProto, path: Path) -> ModelProto:
    """The model by ONNX Runtime's basic optimizations, which leave standard operators.

    Args:
        model (ModelProto): a graph.
        path (Path): a file to write to.

    Returns:
        ModelProto
    """
    onnx, onnxruntime = import_module('onnx'), import_module('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnx.save(model, str(path))
    onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return onnx.load(str(path))


def loop_over_images(model: ModelProto, batch: int | str) -> ModelProto:
    """A graph of several images, which runs that of one image after another.

    Each image has kernels of its own, so that nothing is shared by computing several at once, and the maps of one
    image stay in the cache.

    Args:
        model (ModelProto): the graph of one image, whose input and outputs have a batch axis of length 1.
        batch (int | str): how many images there are to be, or the name of a size that is known when it runs.

    Returns:
        ModelProto: with the same names of inputs and outputs; a ``Scan`` whose body is the graph of one image.
    """
    onnx = import_module('onnx')
    helper = onnx.helper
    body = onnx.compose.add_prefix(model, BODY).graph  # names within a loop must be other ones than around it
    images, = model.graph.input
    outputs = [f'{output.name}_in_turn' for output in model.graph.output]
    nodes = [helper.make_node('Unsqueeze', [images.name, 'axis'], ['images_in_turn']),
             helper.make_node('Scan', ['images_in_turn'], outputs, body=body, num_scan_inputs=1),
             *(helper.make_node('Squeeze', [maps, 'axis'], [output.name])
               for output, maps in zip(model.graph.output, outputs))]
    axis = onnx.numpy_helper.from_array(np.array([1]), 'axis')
    looped = _model_like(model, helper.make_graph(nodes, 'images', model.graph.input, model.graph.output, [axis]))
    for value in (*looped.graph.input, *looped.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        if isinstance(batch, int):
            dim.dim_value = batch
        else:
            dim.dim_param = batch
    return looped


BODY = 'image/'
"""What the names within the loop begin with."""


def graph_of_one_image(model: ModelProto) -> ModelProto | None:
    """The body of what :func:`loop_over_images` returned, as a graph by itself; None for another graph.

    Args:
        model (ModelProto): a graph.

    Returns:
        ModelProto | None
    """
    body = _body_of_loop(model)
    return None if body is None else _model_like(model, body)


def with_graph_of_one_image(model: ModelProto, one: ModelProto) -> None:
    """Put a graph in the place of that which :func:`graph_of_one_image` returned.

    Args:
        model (ModelProto): changed in place.
        one (ModelProto): with the same input and outputs.
    """
    _body_of_loop(model).CopyFrom(one.graph)
    del model.opset_import[:]
    model.opset_import.extend(one.opset_import)


def _body_of_loop(model: ModelProto) -> GraphProto | None:
    """That of the ``Scan`` that is the whole graph, or None."""
    kinds = [node.op_type for node in model.graph.node]
    if set(kinds) != {'Unsqueeze', 'Scan', 'Squeeze'} or kinds.count('Scan') > 1:
        return None
    scan = model.graph.node[kinds.index('Scan')]
    return next(attribute.g for attribute in scan.attribute if attribute.name == 'body')


def _model_like(model: ModelProto, graph: GraphProto) -> ModelProto:
    """A graph with the versions and the producer of a model."""
    return import_module('onnx').helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name=model.producer_name,
        producer_version=model.producer_version)


def fold_norms(model: ModelProto) -> bool:
    """Move batch norms into the convolutions, products and sums before them, and turn what is left of them into a
    product and a sum.

    Args:
        model (ModelProto): changed in place.

    Returns:
        bool: whether there was one.
    """
    graph = _Graph(model)
    norms = [node for node in graph.nodes if node.op_type == 'BatchNormalization'
             and all(name in graph.constants for name in node.input[1:])]  # else by the statistics of its input
    for norm in norms:
        graph.fold(norm)
    graph.write()
    return bool(norms)


class _Graph:
    """Nodes and constants of a graph while it is changed."""

    def __init__(self, model: ModelProto) -> None:
        self.helper, self.numpy = import_module('onnx').helper, import_module('onnx').numpy_helper
        self.graph = model.graph
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        values = import_module('onnx').shape_inference.infer_shapes(model).graph
        self.ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*values.input, *values.value_info)
                      if value.type.tensor_type.HasField('shape')}
        self.new = 0

    def write(self) -> None:
        for values, field in ((self.nodes, self.graph.node), (self.constants.values(), self.graph.initializer)):
            values = list(values)
            del field[:]
            field.extend(values)

    def fold(self, norm) -> None:
        """A norm in eval mode into what stands before it."""
        x, *parameters = norm.input
        gamma, beta, mean, variance = (self.value(name).astype(np.float64) for name in parameters)
        epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == 'epsilon'), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        y = self.shifted(self.scaled(x, scale, norm), beta - mean * scale, norm)
        self.nodes.remove(norm)
        last = self.producer(y)
        last.output[list(last.output).index(y)] = norm.output[0]  # which others use, and nobody but the norm used y

    def scaled(self, name: str, scale: np.ndarray, before) -> str:
        """``name`` times a factor a channel: by changed constants before it where that can be, else by a product in
        front of the node ``before``."""
        node = self.producer(name)
        if not self.takes_scale(name):
            return self.insert('Mul', name, self.per_channel(scale, self.ranks.get(name, 4)), before)
        if node.op_type in ('Add', 'Mul'):
            for index in (0, 1) if node.op_type == 'Add' else [self.takes_scale(node.input[1])]:
                node.input[index] = self.scaled(node.input[index], scale, node)
            return name
        if node.input[1] in self.constants:
            weight = self.value(node.input[1])
            node.input[1] = self.constant(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
        else:
            node.input[1] = self.insert('Mul', node.input[1], self.constant(scale.reshape(-1, 1, 1, 1)), node)
        if len(node.input) > 2:
            node.input[2] = self.constant(self.value(node.input[2]) * scale)
        return name

    def takes_scale(self, name: str) -> bool:
        """Whether all that makes a value can be scaled instead of it, and nothing else uses that."""
        node = self.producer(name)
        if node is None or self.uses(name) > 1:
            return False
        if node.op_type in ('Add', 'Mul'):
            found = [self.takes_scale(operand) for operand in node.input]
            return all(found) if node.op_type == 'Add' else any(found)
        return self.takes_shift(name)

    def shifted(self, name: str, shift: np.ndarray, before) -> str:
        """``name`` plus a summand a channel, in a bias where that can be."""
        node = self.producer(name)
        if self.uses(name) <= 1 and node is not None and node.op_type == 'Add':
            for index, operand in enumerate(node.input):
                if self.takes_shift(operand):
                    node.input[index] = self.shifted(operand, shift, node)
                    return name
        if not self.takes_shift(name):
            return self.insert('Add', name, self.per_channel(shift, self.ranks.get(name, 4)), before)
        old = self.value(node.input[2]) if len(node.input) > 2 else 0
        del node.input[2:]
        node.input.append(self.constant(old + shift))
        return name

    def takes_shift(self, name: str) -> bool:
        """Whether a value is put out by a convolution or product with a constant bias or none, and used once."""
        node = self.producer(name)
        if node is None or self.uses(name) > 1 or len(node.input) > 2 and node.input[2] not in self.constants:
            return False
        plain = {attribute.name: self.helper.get_attribute_value(attribute) for attribute in node.attribute}
        return node.op_type == 'Conv' or node.op_type == 'Gemm' and node.input[1] in self.constants and (
            plain.get('transA', 0), plain.get('transB', 0), plain.get('alpha', 1), plain.get('beta', 1)) == (0, 1, 1, 1)

    def producer(self, name: str):
        return next((node for node in self.nodes if name in node.output), None)

    def uses(self, name: str) -> int:
        """How often a value is used: by nodes, loops within them and outputs of the graph."""
        def count(nodes) -> int:
            return sum(list(node.input).count(name) + sum(count(attribute.g.node) for attribute in node.attribute)
                       for node in nodes)
        return count(self.nodes) + sum(output.name == name for output in self.graph.output)

    def value(self, name: str) -> np.ndarray:
        return self.numpy.to_array(self.constants[name])

    def constant(self, values: np.ndarray) -> str:
        self.new += 1
        name = f'folded_{self.new}'
        self.constants[name] = self.numpy.from_array(np.ascontiguousarray(values, np.float32), name)
        return name

    def per_channel(self, values: np.ndarray, rank: int) -> str:
        return self.constant(values.reshape(1, -1, *[1] * (rank - 2)))

    def insert(self, kind: str, x: str, constant: str, before) -> str:
        self.new += 1
        name = f'folded_{self.new}'
        self.ranks[name] = self.ranks.get(x, 4)
        self.nodes.insert(self.nodes.index(before), self.helper.make_node(kind, [x, constant], [name], name))
        return name

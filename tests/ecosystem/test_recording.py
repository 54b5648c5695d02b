"""What records a call: ``torch.jit.trace``, ``torch.onnx.export``, ``torch.fx`` and ``torch.compile``."""
from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from conv_layers import make_features, make_layer
from one_graph import needs_one_graph
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynconv_mm.layers import DCDConv2d

BY_TRACE = dict(dynamo=False) if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}

ARGUMENTS = [dict(), dict(bias=False), dict(bias=False, kernel_size=1, padding=0)]


@contextlib.contextmanager
def strict_checks():
    """What the check of a trace warns of is an error; not that sizes are looked at, which torch's own norms do."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        warnings.filterwarnings('error', r'(?s).*(Output nr|nondeterministic|differ)', torch.jit.TracerWarning)
        yield


def operations(traced: torch.jit.ScriptModule) -> Counter[str]:
    """What a graph does, constants aside."""
    return Counter(node.kind() for node in traced.inlined_graph.nodes() if node.kind().startswith('aten::'))


@pytest.mark.one_at_a_time('name', 'arguments', 'training')
@pytest.mark.parametrize('arguments', ARGUMENTS, ids=str)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_a_trace_passes_its_own_check(name, x, arguments, training):
    layer = make_layer(name, **arguments).train(training)
    with strict_checks():
        traced = torch.jit.trace(layer, x, check_trace=True)
    for other in (x, make_features(3, seed=2)):
        torch.testing.assert_close(traced(other), layer(other), rtol=1e-4, atol=1e-5)


@pytest.mark.one_at_a_time('name', 'arguments', 'training')
@pytest.mark.parametrize('arguments', ARGUMENTS, ids=str)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_a_trace_does_not_depend_on_the_gradient_mode(name, x, arguments, training):
    layer = make_layer(name, **arguments).train(training)
    found = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), strict_checks():
            found.append(operations(torch.jit.trace(layer, x, check_trace=False)))
    assert found[0] == found[1]
    in_place = Counter({kind: times for kind, times in found[0].items() if kind.endswith('_')})
    in_place['aten::add_'] -= sum(norm.training for norm in layer.modules() if isinstance(norm, _BatchNorm))  # counts
    in_place['aten::relu_'] -= sum(isinstance(module, nn.ReLU) and module.inplace for module in layer.modules())
    assert not +in_place


def test_a_trace_has_the_gradients_of_the_layer(layer, x):
    with strict_checks():
        traced = torch.jit.trace(layer, x)
    parameters = list(layer.parameters())
    actual = torch.autograd.grad(traced(x).square().sum(), parameters)
    torch.testing.assert_close(actual, torch.autograd.grad(layer(x).square().sum(), parameters), rtol=1e-3, atol=1e-3)


def test_plain_onnx_export_of_a_trace(layer, x, tmp_path):
    """As a user, or mmdeploy, does it: with parameters that want gradients."""
    runtime = pytest.importorskip('onnxruntime')
    path = str(tmp_path / 'layer.onnx')
    torch.onnx.export(layer, (x, ), path, input_names=['x'], output_names=['y'], dynamic_axes={'x': {0: 'batch'}},
                      opset_version=17, **BY_TRACE)
    session = runtime.InferenceSession(path, providers=['CPUExecutionProvider'])
    for batch in (2, 3):
        features = make_features(batch, seed=2)
        actual, = session.run(['y'], {'x': features.numpy()})
        np.testing.assert_allclose(actual, layer(features).detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.one_at_a_time('name', 'grad_mode')
def test_symbolic_trace(layer, x, grad_mode):
    """By itself, where torch.fx has stand-ins for the arguments that are left out."""
    graph = torch.fx.symbolic_trace(layer)
    assert isinstance(graph, torch.fx.GraphModule)
    graph.graph.lint()
    for batch in (1, 3):
        features = make_features(batch, seed=2)
        torch.testing.assert_close(graph(features), layer(features), rtol=1e-4, atol=1e-5)


def test_the_gradients_of_a_symbolic_trace(layer, x):
    graph = torch.fx.symbolic_trace(layer)
    actual = torch.autograd.grad(graph(x).square().sum(), [graph.get_parameter(name)
                                                           for name, _ in layer.named_parameters()])
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.one_at_a_time('name', 'options')
@pytest.mark.parametrize('options', [dict(), dict(variant='paper', groups=8), dict(variant='paper', fusion='joint')],
                         ids=str)
def test_a_symbolic_trace_in_training(layer, options):
    for model in (layer, DCDConv2d(8, 8, 3, padding=1, **options)):
        model, features = nn.Sequential(model).train(), torch.randn(3, model.in_channels, 7, 7)
        graph = torch.fx.symbolic_trace(copy.deepcopy(model))
        torch.testing.assert_close(graph(features), model(features), rtol=1e-4, atol=1e-5)


@pytest.mark.one_at_a_time('name', 'backend')
@needs_one_graph
@pytest.mark.parametrize(('backend', 'training', 'batch'), [
    ('eager', True, 1), ('aot_eager', True, 1), ('eager', True, 2), ('eager', False, 1),
])
def test_compiled_as_one_graph(layer, backend, training, batch):
    """In training by a single sample too, where the norm in an attention warns."""
    layer.train(training)
    x, compiled = make_features(batch), torch.compile(layer, fullgraph=True, backend=backend)
    results = []
    for run in (compiled, layer):
        y = run(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)

"""The way that a call takes stays short: the figures of ``tests/support/call_path.py`` keep within their limits."""
from __future__ import annotations

import pytest
from call_path import all_places, call_path, circles, count_lines, follow, import_graph, places

from dynconv_mm.layers.conv_arguments import check_positive_int
from dynconv_mm.layers.temperature import check_temperature


@pytest.mark.parametrize(('mode', 'files'), [('eval, batch 1', 6), ('eval, batch 8', 7), ('training, batch 8', 8)])
def test_path(mode, files):
    path = call_path(mode)
    assert 1 < path.files <= files and path.returns <= 6, path


def test_places_that_ask_about_the_surroundings():
    found = [f'{place}: {kind}' for kind, where in all_places().items() for place in where]
    assert 0 < len(found) <= 15, found


def test_lines():
    assert count_lines() <= 9930


def test_no_import_circle():
    graph = import_graph()
    assert graph['dynconv_mm.layers.odconv'] & graph.keys()
    assert not circles(graph)


def test_a_path_is_counted():
    path = follow(lambda: [check_positive_int('a', 1), check_temperature(2), sorted([1]), check_temperature(3),
                           check_positive_int('b', 1)])
    assert (path.files, path.calls, path.returns) == (2, 4, 1)


def test_places_are_found():
    source = '''
from a import is_grad_enabled

def has_hooks(x):
    'is_traced()'
    return x._forward_hooks or (
        torch.is_grad_enabled() and is_traced() and not is_exported())
'''
    assert {kind: lines for kind, lines in places(source).items() if lines} == {
        'hooks': [6], 'gradients enabled': [7], 'traced or exported': [7]}


def test_circles_are_found():
    assert circles(dict(a={'b', 'torch'}, b={'c'}, c={'b', 'd'}, d={'e'}, e={'d'}, f={'a'})) in (
        [{'b', 'c'}, {'d', 'e'}], [{'d', 'e'}, {'b', 'c'}])

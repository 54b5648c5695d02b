"""How far a call has to go: figures of ``functional/`` and ``layers/`` that are to stay small.

``PYTHONPATH=. python tests/support/call_path.py`` prints them, and with ``-v`` the places.

- **Path.** ``sys.setprofile`` follows one call of ``ODConv2d(64, 64, 3, padding=1)`` on features of 14×14, without
  Numba, behind two calls that fill what is kept between calls: in eval mode without gradients, and the forward pass in
  training. Those ``call`` events count whose code lies in the package, generator expressions and comprehensions
  included. *Files* are those that they lie in; *returns* the events whose file is not that of the event before and was
  met earlier: how often a reader goes back to a file that he had left.
- **Places** that ask about the surroundings: lines of ``functional/`` and ``layers/`` whose code names one of
  :data:`QUESTIONS`, once for each kind; definitions and imports do not count, nor do the two files that are there to
  answer (:data:`ANSWERS`).
- **Lines** of ``functional/`` and ``layers/``, all of them.
- **Circles**: sets of modules of ``functional/`` and ``layers/`` each of which imports all others, directly or by way
  of them. Imports within functions count.

Before there were operators with backends, these were, at batch 1, 8 and in training, 17, 17 and 16 files and 51, 39 and
35 returns; 66 places; 5873 lines; one circle.
"""
from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from module_imports import imports, module_name

import dynconv_mm
from dynconv_mm.functional import enable_numba
from dynconv_mm.layers import ODConv2d

PACKAGE = Path(dynconv_mm.__file__).parent
FOLDERS = ('functional', 'layers')
#: modes of the call: whether it trains, and its batch
MODES = {'eval, batch 1': (False, 1), 'eval, batch 8': (False, 8), 'training, batch 8': (True, 8)}
#: where questions are answered
ANSWERS = ('functional/operator.py', 'functional/kernel_switches.py')
#: names by which code asks in which surroundings it runs
QUESTIONS = {
    'traced or exported': {'is_traced', 'is_exported', 'is_compiling', '_is_compiling', 'is_dynamo_compiling',
                           'is_exporting', '_is_exporting', 'is_tracing', 'is_scripting', 'is_fx_tracing',
                           '_is_fx_tracing_flag', 'is_recorded'},
    'gradients enabled': {'is_grad_enabled', 'is_inference_mode_enabled', '_is_fwd_grad_enabled', 'records_gradients'},
    'Numba or Triton serving': {'kernels_for', 'numba_enabled', 'triton_enabled', 'serves', 'is_enabled',
                                'in_this_thread'},
    'autocast': {'autocast_dtype', 'is_autocast_enabled', 'is_autocast_cpu_enabled', 'get_autocast_dtype',
                 'get_autocast_cpu_dtype', 'get_autocast_gpu_dtype'},
    'hooks': {'has_hooks', 'is_plain', '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks',
              '_global_forward_hooks', '_global_forward_pre_hooks', '_global_backward_hooks',
              '_global_backward_pre_hooks', '_has_any_global_hook'},
    'modes and transforms': {'is_plain_eager', 'is_inference', '_len_torch_dispatch_stack',
                             '_len_torch_function_stack', 'has_torch_function',
                             '_get_current_dispatch_mode', 'is_fake', 'FakeTensor', '_functorch', 'functorch',
                             'peek_interpreter_stack', 'maybe_current_level', 'is_functorch_wrapped_tensor',
                             'is_batchedtensor', 'is_gradtrackingtensor', '_is_functional_tensor', 'forward_ad',
                             '_current_level', '_fw_grad', 'unpack_dual', '_is_zerotensor'},
}


class CallPath(NamedTuple):
    """Of one call."""

    files: int
    calls: int
    returns: int


def follow(function: Callable[[], object]) -> CallPath:
    """The path of one call of ``function``."""
    files = []

    def watch(frame, event: str, argument: object) -> None:
        if event == 'call' and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            files.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(before)
    returns = sum(file != last and file in files[:index] for index, (last, file) in enumerate(zip(files, files[1:])))
    return CallPath(len(set(files)), len(files), returns)


def call_path(mode: str) -> CallPath:
    """The path of a call in one of :data:`MODES`."""
    training, batch = MODES[mode]
    layer, x = ODConv2d(64, 64, 3, padding=1).train(training), torch.randn(batch, 64, 14, 14)
    with torch.set_grad_enabled(training), enable_numba(False):
        for _ in range(2):
            layer(x)
        return follow(lambda: layer(x))


def source_files() -> list[Path]:
    """The files of the two folders."""
    return [file for folder in FOLDERS for file in sorted((PACKAGE / folder).rglob('*.py'))]


def places(source: str) -> dict[str, list[int]]:
    """The lines that ask about the surroundings, by kind."""
    names = [(node.id if isinstance(node, ast.Name) else node.attr, node.lineno) for node in ast.walk(ast.parse(source))
             if isinstance(node, (ast.Name, ast.Attribute))]
    return {kind: sorted({line for name, line in names if name in asked}) for kind, asked in QUESTIONS.items()}


def all_places() -> dict[str, list[str]]:
    """All places as 'file:line', by kind."""
    found = {kind: [] for kind in QUESTIONS}
    for file in source_files():
        if file.relative_to(PACKAGE).as_posix() in ANSWERS:
            continue
        for kind, lines in places(file.read_text(encoding='utf-8')).items():
            found[kind] += [f'{file.relative_to(PACKAGE)}:{line}' for line in lines]
    return found


def count_lines() -> int:
    """Lines of the two folders."""
    return sum(len(file.read_text(encoding='utf-8').splitlines()) for file in source_files())


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that import each other, of ``graph``: what each imports."""

    def reached(start: str) -> set[str]:
        found, rest = set(), [start]
        while rest:
            new = graph.get(rest.pop(), set()) - found
            found |= new
            rest += new
        return found

    reach = {name: reached(name) for name in graph}
    whole = {frozenset(other for other in reach if other in reach[name] and name in reach[other]) for name in reach}
    return [set(circle) for circle in whole if circle]


def import_graph() -> dict[str, set[str]]:
    """What each module of the two folders imports; a package is named without ``__init__``."""
    names = {file: module_name(file.relative_to(PACKAGE)) for file in source_files()}
    return {name.removesuffix('.__init__'): imports(file, name) for file, name in names.items()}


def main() -> None:
    for mode in MODES:
        path = call_path(mode)
        print(f'{mode:26}{path.files:5} files {path.calls:5} calls {path.returns:5} returns')
    found = all_places()
    for kind, where in found.items():
        print(f'{kind:26}{len(where):5} places')
    print(f'{"together":26}{sum(map(len, found.values())):5} places')
    print(f'{"lines":26}{count_lines():5}')
    print(f'{"import circles":26}{len(circles(import_graph())):5}')
    if '-v' in sys.argv:
        print(*(f'{place}  {kind}' for kind, where in found.items() for place in where), sep='\n')


if __name__ == '__main__':
    main()

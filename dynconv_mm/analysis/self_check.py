"""Whether every backend computes, on the device at hand, what its equation says, and how long each takes there."""
from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..atomic_write import write_text
from ..functional import device_record, enable_numba, enable_triton
from ..functional.device_record import Record
from ..functional.involution import INVOLUTION, Involution
from ..functional.mixture_conv import MIXTURE_CONV, Mixture
from ..functional.operator import Operator, execute
from ..layers import ODConv2d
from . import calibration

# The largest error, over the largest value. The first is for products in float32; where TF32 is allowed, see below.
TOLERANCES = {torch.float32: 1e-4, torch.float16: .01, torch.bfloat16: .05}
TF32 = .005

# n, groups, channels and outputs of a group, kernel size, stride, height and width
MIXTURES = ((1, 1, 24, 40, 1, 1, (9, 7)), (4, 1, 40, 24, 1, 1, (6, 5)), (4, 1, 24, 40, 3, 2, (9, 7)),
            (1, 1, 70, 66, 3, 1, (5, 6)), (2, 2, 12, 8, 3, 1, (6, 5)), (4, 6, 1, 1, 3, 1, (9, 7)))
# groups, channels of a group, kernel size, stride, height and width
INVOLUTIONS = ((2, 16, 7, 1, (9, 8)), (3, 5, 3, 2, (7, 9)))
BATCH = 5

# The layers that are measured on a GPU, as in calibration.LAYERS; each takes some seconds to compile for.
GPU_LAYERS = (
    (64, 64, 3, 56, 1, 1), (128, 128, 3, 56, 2, 1), (128, 128, 3, 28, 1, 1), (256, 256, 3, 14, 1, 1),
    (512, 512, 3, 7, 1, 1), (64, 256, 1, 56, 1, 1), (256, 64, 1, 56, 1, 1), (512, 128, 1, 28, 1, 1),
    (256, 1024, 1, 14, 1, 1), (512, 2048, 1, 7, 1, 1), (24, 144, 1, 56, 1, 1), (960, 160, 1, 7, 1, 1),
    (96, 96, 3, 112, 2, 96), (144, 144, 3, 56, 1, 144), (384, 384, 3, 14, 1, 384), (960, 960, 3, 7, 1, 960),
    (128, 128, 3, 56, 1, 32), (512, 512, 3, 14, 1, 32),
)
GPU_BATCHES = (16, 128)
WORKERS = 14


class Check(NamedTuple):
    """Of one backend with tensors of one type."""

    backend: str  # such as 'mixture_conv.triton'
    dtype: str
    problem: str | None  # what it did that it should not have; None: it passed


def check(device: torch.device) -> list[Check]:
    """Compare values and gradients of all backends that serve the device with the equations in float64.

    A backend that refuses all calls of a type is left out, and so is a type in which torch itself has no convolutions
    on the device, as float16 on CPUs in torch 2.1.
    """
    checks = []
    for dtype in filter(lambda dtype: _has_convolutions(device, dtype), TOLERANCES):
        for name, operator, calls in (('mixture_conv', MIXTURE_CONV, _mixtures),
                                      ('involution', INVOLUTION, _involutions)):
            for backend in filter(_is_installed, operator.backends):
                problems = [_problem(operator, backend, call) for call in calls(device, dtype)]
                if any(problem is not REFUSED for problem in problems):
                    problem = next((problem for problem in problems if problem not in (None, REFUSED)), None)
                    checks.append(Check(f'{name}.{backend}', str(dtype)[6:], problem))
    checks += _check_attention(device)
    return checks


def _has_convolutions(device: torch.device, dtype: torch.dtype) -> bool:
    one = torch.ones(1, 1, 1, 1, device=device, dtype=dtype)
    try:
        return bool(functional.conv2d(one, one) == 1)
    except RuntimeError:
        return False


REFUSED = 'refused'
SWITCHES = dict(numba=enable_numba, triton=enable_triton)  # of backends that need a package


def _is_installed(name: str) -> bool:
    try:
        SWITCHES[name].check() if name in SWITCHES else None
    except ImportError:
        return False
    return True


def _problem(operator: Operator, name: str, call: Any) -> str | None:
    """What is wrong with the output or a gradient of a call."""
    backend, tensors = operator.backends[name], [t for t in call[:operator.tensors] if t is not None]
    trains = backend.backward is not None
    with SWITCHES[name]() if name in SWITCHES else nullcontext():
        if operator.refusal(name, call, trains) is not None:
            return REFUSED
        try:
            with torch.set_grad_enabled(trains):
                y = execute(operator, backend, operator.without_norm(call))
                upstream = torch.randn_like(y)
                actual = [y, *(torch.autograd.grad(y, tensors, upstream) if trains else ())]
        except Exception as error:  # what it raises is the finding
            return _raised(error)
    exact = type(call)(*[None if t is None else t.detach().double().requires_grad_() for t in call[:operator.tensors]],
                       *call[operator.tensors:])
    expected = operator.reference(exact)
    leaves = [t for t in exact[:operator.tensors] if t is not None]
    expected = [expected, *(torch.autograd.grad(expected, leaves, upstream.double()) if trains else ())]
    names = ['output', *(f'gradient of {field}' for field, t in zip(call._fields, call[:operator.tensors])
                         if t is not None)]
    return _largest_error(names, actual, expected)


def _raised(error: Exception, call: str = '') -> str:
    """What a backend did that raised, at some call."""
    return f'raises {type(error).__name__}{call}: {str(error).strip()[:200]}'


def _largest_error(names: Iterable[str], actual: Iterable[Tensor], expected: Iterable[Tensor]) -> str | None:
    for name, a, b in zip(names, actual, expected):
        tolerance = TOLERANCES[a.dtype]
        if a.dtype == torch.float32 and a.is_cuda and (torch.backends.cudnn.allow_tf32
                                                       or torch.backends.cuda.matmul.allow_tf32):
            tolerance = TF32
        error = (a.double() - b).abs().max() / b.abs().max()
        if not error <= tolerance:  # NaN is no small error
            return f'{name} is off by {error:.2g} of its largest value, with {tolerance} allowed'
    return None


def _rand(device: torch.device, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))).to(device, dtype).requires_grad_()


def _features(device: torch.device, dtype: torch.dtype, channels: int, size: tuple[int, int],
              memory_format: torch.memory_format) -> Tensor:
    x = _rand(device, dtype, BATCH, channels, *size).detach() - .5
    return x.contiguous(memory_format=memory_format).requires_grad_()


def _mixtures(device: torch.device, dtype: torch.dtype) -> Iterator[Mixture]:
    formats = torch.contiguous_format, torch.channels_last
    for (n, groups, channels, outputs, k, stride, size), order in itertools.product(MIXTURES, formats):
        def rand(*shape: int) -> Tensor:
            return _rand(device, dtype, *shape)

        weight = (rand(n, groups * outputs, channels, k, k).detach() - .5).requires_grad_()
        yield Mixture(_features(device, dtype, groups * channels, size, order), weight, rand(groups * outputs),
                      rand(BATCH, n) if n > 1 else None, rand(BATCH, k * k) if k > 1 else None,
                      rand(BATCH, groups * channels), rand(BATCH, groups * outputs), (stride, stride),
                      (k // 2, k // 2), (1, 1), groups, True)


def _involutions(device: torch.device, dtype: torch.dtype) -> Iterator[Involution]:
    formats = torch.contiguous_format, torch.channels_last
    for (groups, channels, k, stride, size), order in itertools.product(INVOLUTIONS, formats):
        out = [(length - 1) // stride + 1 for length in size]
        yield Involution(_features(device, dtype, groups * channels, size, order),
                         _rand(device, dtype, BATCH, groups, k, k, *out), (stride, stride), (k // 2, k // 2), (1, 1))


def _check_attention(device: torch.device) -> list[Check]:
    """The kernels of attentions, which run in the parameters' type; on a GPU they have gradients too."""
    torch.manual_seed(0)
    layer, name = ODConv2d(40, 70, 3).to(device), 'numba' if device.type == 'cpu' else 'triton'
    if not _is_installed(name):
        return []
    exact = copy.deepcopy(layer).double()
    x = _features(device, torch.float32, 40, (9, 7), torch.channels_last)
    for training in (False, True) if name == 'triton' else (False, ):
        try:
            with enable_triton(name == 'triton'), enable_numba(name == 'numba'):
                actual = _attentions(layer.train(training), x)
        except Exception as error:  # what it raises is the finding
            return [Check(f'attention.{name}', 'float32', _raised(error))]
        with enable_triton(False), enable_numba(False):
            expected = _attentions(exact.train(training), x.detach().double().requires_grad_())
        problem = _largest_error(expected, actual.values(), expected.values())
        if problem is not None:
            break
    return [Check(f'attention.{name}', 'float32', problem)]


def _attentions(layer: ODConv2d, x: Tensor) -> dict[str, Tensor]:
    """By name, in training with gradients of their squares."""
    with torch.set_grad_enabled(layer.training):
        attentions = layer.compute_attentions(x)
    if not layer.training:
        return attentions
    wanted = {'input': x, **dict(layer.attention.named_parameters())}
    total = sum(attention.square().sum() for attention in attentions.values())
    gradients = torch.autograd.grad(total, list(wanted.values()))
    return {**attentions, **{f'gradient of {key}': gradient for key, gradient in zip(wanted, gradients)}}


# Costs.


def measure(device: torch.device, checks: list[Check], rounds: int,
            track: Callable[[Iterable, str, int], Iterable] = lambda steps, text, total: steps,
            ) -> tuple[dict[str, dict[str, dict[str, list[float]]]], dict[str, dict[str, float]]]:
    """The costs of the plans that passed, and for each type and kind of convolution all times of each plan together.

    On a GPU float32 is measured contiguous and bfloat16 in channels_last, as networks run fast in them; on a CPU
    float32 alone.

    Args:
        device (torch.device): where.
        checks (list[Check]): of :func:`check`.
        rounds (int): measurements of each.
        track (Callable): shows progress; takes an iterable, a text and its length, and yields the same.
    """
    milliseconds, totals = {}, {}
    for dtype in (torch.float32, torch.bfloat16) if device.type == 'cuda' else (torch.float32, ):
        name = str(dtype)[6:]
        passed = [found.backend.rpartition('.')[2] for found in checks if found.dtype == name
                  and found.problem is None and found.backend.startswith('mixture_conv.')]
        measurements = []
        for is_training in (False, True):
            text, cases = f'{name}, {"training" if is_training else "inference"}', _cases(device, dtype, is_training)
            total = sum(len(layers) * len(batches) for layers, batches in _measured(device))
            for case in track(cases, text, total * len(calibration.KERNEL_NUMS)):
                with enable_triton('triton' in passed):
                    measurements.append((case.shape, _measure_plans(case, rounds, name, passed, checks)))
        measurements = [(shape, {plan: time for plan, time in times.items() if plan in passed})
                        for shape, times in measurements]
        milliseconds[name] = calibration.fit(measurements)
        totals[name] = {}
        for kind in milliseconds[name]:
            rows = [times for shape, times in measurements if shape.kind == kind]
            everywhere = set.intersection(*[set(times) for times in rows])
            totals[name][kind] = {plan: sum(times[plan] for times in rows) for plan in sorted(everywhere)}
    return milliseconds, totals


def _measure_plans(case: calibration.Case, rounds: int, dtype: str, passed: list[str],
                   checks: list[Check]) -> dict[str, float]:
    """Milliseconds by plan; one that raises has failed its check, and is measured no more."""
    times = {}
    for plan in calibration.candidates(case.mixture):
        if plan in passed:
            try:
                times.update(calibration.measure(case, rounds, [plan]))
            except Exception as error:  # what it raises is the finding
                passed.remove(plan)
                backend = f'mixture_conv.{plan}'
                checks[:] = [found for found in checks if (found.backend, found.dtype) != (backend, dtype)]
                checks.append(Check(backend, dtype, _raised(error, f' for {case.shape}')))
    return times


def _measured(device: torch.device) -> tuple[tuple, ...]:
    """Layers, and the batches with which they are measured."""
    if device.type == 'cuda':
        return ((GPU_LAYERS, GPU_BATCHES), )
    return (calibration.LAYERS, calibration.BATCHES), (calibration.THIN_LAYERS, calibration.THIN_BATCHES)


def _cases(device: torch.device, dtype: torch.dtype, is_training: bool) -> Iterator[calibration.Case]:
    for layers, batches in _measured(device):
        yield from calibration.cases(is_training, 0, layers, batches, device, dtype, dtype == torch.bfloat16)


def compile_kernels(device: torch.device) -> None:
    """Let several processes compile what :func:`check` and :func:`measure` will call; Triton keeps the machine code on
    disk."""
    workers, context = min(WORKERS, os.cpu_count() or 1), multiprocessing.get_context('spawn')
    # daemons: they end with this process, however it ends
    processes = [context.Process(target=_compile_share, args=(device, worker, workers), daemon=True)
                 for worker in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def _compile_share(device: torch.device, worker: int, workers: int) -> None:
    jobs = [(_problem, operator, 'triton', call) for operator, calls in ((MIXTURE_CONV, _mixtures),
                                                                         (INVOLUTION, _involutions))
            for dtype in TOLERANCES for call in calls(device, dtype)]
    for job, *arguments in jobs[worker::workers]:
        job(*arguments)
    with enable_triton():
        for dtype, is_training in itertools.product((torch.float32, torch.bfloat16), (True, False)):
            for index, case in enumerate(_cases(device, dtype, is_training)):
                if index % workers == worker and MIXTURE_CONV.refusal('triton', case.mixture, is_training) is None:
                    _measure_plans(case, 1, '', ['triton'], [])


def make_record(checks: list[Check], milliseconds: dict) -> Record:
    """What is kept for the device."""
    dtypes = list(dict.fromkeys(found.dtype for found in checks))
    return Record({dtype: [found.backend for found in checks if found.dtype == dtype and found.problem is None]
                   for dtype in dtypes},
                  {dtype: {found.backend: found.problem for found in checks
                           if found.dtype == dtype and found.problem is not None} for dtype in dtypes}, milliseconds)


def write_record(device: torch.device, record: Record) -> Path:
    """Store a record, in the place of one that is there, for processes that start from now on.

    Returns:
        Path: of the file.
    """
    file = device_record.path(device)
    content = dict(device=device_record.device_name(device), **record._asdict())
    write_text(file, json.dumps(content, indent=1) + '\n')
    device_record.read.cache_clear()
    return file


def report(device: torch.device, checks: list[Check], totals: dict[str, dict[str, dict[str, float]]]) -> str:
    """What is fast, what failed, and what to do."""
    lines = [f'{device_record.device_name(device)}, torch {torch.__version__}']
    for dtype in dict.fromkeys(found.dtype for found in checks):
        passed = [found.backend for found in checks if found.dtype == dtype and found.problem is None]
        lines.append(f'{dtype}: {len(passed)} backends give the values and gradients of the equations: '
                     f'{", ".join(passed)}')
    failed = [found for found in checks if found.problem is not None]
    lines += [f'FAILED: {found.backend} in {found.dtype} {found.problem}' for found in failed]
    if failed:
        lines.append('What failed is never chosen on this device. Please report it, with this output and that of '
                     '`python -m torch.utils.collect_env`.')
    if not any(found.backend.endswith('.triton') for found in checks):
        lines.append('Triton serves nothing here' + (
            ': `pip install triton`, in the version that this torch asks for, and calibrate again.'
            if device.type == 'cuda' else ', which is for GPUs.'))
    for dtype, kinds in totals.items():
        for kind, plans in kinds.items():
            ranked = sorted(plans, key=plans.__getitem__)
            lines.append(f'{dtype}, {kind}: ' + ', '.join(f'{plan} {plans[plan]:.4g} ms' for plan in ranked))
    return '\n'.join(lines)

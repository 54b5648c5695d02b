"""What whole networks cost beside the static network they stand in for: time, and peak memory."""
from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..compat.close_names import did_you_mean
from ..conversion.architecture import kw_arguments
from ..conversion.export import RUNTIMES as EXPORTED
from ..conversion.export import export, import_runtime, load_onnx
from ..conversion.settle_norms import random_images
from ..functional import use_plan
from ..functional.device_record import processor
from ..model_zoo import get_model, list_models
from ..models import (
    CondConvMobileNetV2,
    CondConvResNet,
    DCDCResNet,
    DCDMobileNetV2,
    DCDResNet,
    DyConvMobileNetV2,
    DyConvResNet,
    FDConvMobileNetV2,
    FDConvResNet,
    KWMobileNetV2,
    KWResNet,
    ODConvMobileNetV2,
    ODConvResNet,
    RedNet,
)
from ..models.backbones import MobileNetV2, ResNet
from ..version import __version__
from .timing import time_in_turns

MIXTURES = {'odconv': (ODConvResNet, ODConvMobileNetV2), 'dyconv': (DyConvResNet, DyConvMobileNetV2),
            'condconv': (CondConvResNet, CondConvMobileNetV2)}
OTHERS = {'dcd': (DCDResNet, DCDMobileNetV2), 'fdconv': (FDConvResNet, FDConvMobileNetV2)}
NETWORK = re.compile(r'(?:(?:(odconv|dyconv|condconv)([1-9])x-|(dcd|fdconv)-|(dcdc)-(?=resnet)|kw(1d4|1d2|[124])x-)?'
                     r'(?:resnet(\d+)|mobilenet-v2-w(\d{3}))(?:-(?P<placement>\dx\d|last-\d+-blocks))?)|rednet(\d+)')
DYNAMIC_PARTS = re.compile(r'(?<=_)(?:odconv[14]x|kw[14]x|dyconv|condconv|dcdc?|involution|fdconv)-')  # of a detector
RUNTIMES = ('pytorch', 'folded', 'compile', *EXPORTED)
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}

# The ratios that the package means to reach on a CPU: inference of 1 and of 8 images, training of 8, its memory.
GOALS = {
    'odconv1x-resnet50': (1.10, 1.10, 1.10, 1.12),
    'odconv4x-resnet50': (1.20, 1.25, 1.30, 1.50),
    'odconv1x-mobilenet-v2-w100': (1.15, 1.15, 1.20, 1.20),
    'odconv4x-mobilenet-v2-w100': (1.25, 1.35, 1.35, 1.15),
    'rednet50': (0.90, 0.90, 1.00, 1.10),
    'dcdc-resnet50': (1.00, 1.00, 1.10, 1.15),
}

# The same of other runtimes, of 1 and of 8 images, beside the static network in the same runtime, and, where norms are
# folded, of an image of a detector's size.
RUNTIME_GOALS = {
    'odconv1x-resnet50': dict(folded=(1.10, 1.05, 1.05), compile=(1.15, ), onnxruntime=(1.20, 1.20),
                              openvino=(1.10, 1.10)),
    'odconv4x-resnet50': dict(folded=(1.20, 1.20, 1.10), compile=(1.35, ), onnxruntime=(1.45, 1.40),
                              openvino=(1.30, 1.30)),
    'odconv1x-mobilenet-v2-w100': dict(folded=(1.15, 1.00, 0.90), compile=(1.40, ), onnxruntime=(1.60, 1.60),
                                       openvino=(1.30, 1.30)),
    'odconv4x-mobilenet-v2-w100': dict(folded=(1.20, 1.10, 0.95), compile=(1.60, ), onnxruntime=(1.90, 1.80),
                                       openvino=(1.60, 1.50)),
    'rednet50': dict(folded=(0.82, 0.88, 1.00), onnxruntime=(1.20, 1.20), openvino=(1.20, 1.20)),
    'dcdc-resnet50': dict(folded=(0.95, 0.90, 1.00), onnxruntime=(1.25, 1.25), openvino=(1.25, 1.25)),
}
RUNTIME_SIZES = ((1, 224, None), (8, 224, None), (1, 800, 1216))  # batch, size and width of these
DYNAMIC_FACTOR = 1.3  # by which a graph for any batch and size may take longer

OBJECTS = 7  # in an image of COCO: 860,001 in 118,287 images of train2017

# Seconds for which a short step is repeated when its turn comes: the first call meets what the network before left.
TURN = .5


class Setting(NamedTuple):
    """Under which circumstances networks are compared."""

    training: bool
    batch: int
    threads: int
    size: int = 224
    device: str = 'cpu'
    dtype: str = 'float32'
    channels_last: bool = False
    width: int | None = None  # of the images, whose height ``size`` is then; None: squares
    runtime: str = 'pytorch'  # one of RUNTIMES, all but the first for inference
    dynamic: bool = False  # exported for any batch and size


class Result(NamedTuple):
    """Of one network by one plan, in one setting."""

    network: str
    plan: str
    setting: Setting
    milliseconds: float
    ratio: float
    quartiles: tuple[float, float]
    peak_megabytes: float | None  # of a process that does nothing else; None where it was not measured
    memory_ratio: float | None


def build_network(name: str) -> nn.Module:
    """A backbone or a detector by its name in ``configs/``.

    Args:
        name (str): such as 'resnet50', 'odconv4x-resnet50', 'condconv8x-mobilenet-v2-w075', 'dcd-resnet18',
            'dcdc-resnet50', 'fdconv-resnet50', 'kw1d2x-resnet50' or 'rednet50'; 'odconv1x-mobilenet-v2-w050-1x1' has
            ODConv at a ``placement`` alone. A detector's ends in '_coco'.

    Raises:
        ValueError: there is no such network.
        ImportError: mmdet, which a detector is built on, is not installed.
    """
    if is_detector(name):
        return get_model(name)
    match = _parse(name)
    mixture, kernel_num, other, dcdc, kw, depth, width, placement, rednet_depth = match.groups()
    if rednet_depth is not None:
        return RedNet(depth=int(rednet_depth))
    kwargs = dict(kernel_num=int(kernel_num)) if mixture else {}
    if placement is not None:
        kwargs['placement'] = placement.replace('-', '_')
    if kw:
        kwargs = kw_arguments(kw, depth and int(depth))
    resnet, mobilenet = (KWResNet, KWMobileNetV2) if kw else \
        {**MIXTURES, **OTHERS}.get(mixture or other, (ResNet, MobileNetV2))
    if depth is None:
        return mobilenet(widen_factor=int(width) / 100, **kwargs)
    return (DCDCResNet if dcdc else resnet)(depth=int(depth), **kwargs)


def _parse(name: str) -> re.Match:
    match = NETWORK.fullmatch(name)
    if match is None or match['placement'] is not None and match[1] != 'odconv':
        known = {stem for stem in (config.split('_')[0] for config in list_models()) if NETWORK.fullmatch(stem)}
        raise ValueError(f"network must be named as in configs/, such as 'odconv4x-resnet50', 'dcd-resnet18', "
                         f"'dyconv4x-mobilenet-v2-w100', 'dcdc-resnet50', 'kw1d2x-resnet50' or 'rednet50', but is "
                         f'{name!r}' + did_you_mean(name, sorted(known)))
    return match


def is_detector(name: str) -> bool:
    """Whether a network is a whole detector, and not a backbone."""
    return name.endswith('_coco')


def static_network(name: str) -> str:
    """The network whose place ``name`` takes: that without its method.

    Raises:
        ValueError: there is no network of that name, or no static one for a detector.
    """
    if is_detector(name):
        static = DYNAMIC_PARTS.sub('', name).replace('rednet', 'r')
        for detector in (name, static):
            if detector not in list_models():
                raise ValueError(f'network {name!r} must be a config, and have a static one beside it, but there is no '
                                 f'{detector!r} in configs/'
                                 + did_you_mean(detector, filter(is_detector, list_models())))
        return static
    placement = _parse(name)['placement']
    if placement is not None:
        name = name.removesuffix(f'-{placement}')
    if name.startswith('rednet'):
        return name.replace('rednet', 'resnet')
    return name if name.startswith(('resnet', 'mobilenet')) else name.split('-', 1)[1]


def make_step(name: str, setting: Setting, plan: str = 'auto') -> Callable[[], None]:
    """One forward pass in eval mode without gradients, or one step of training by SGD with momentum.

    Half precision is by autocast. In eval mode the weights are not changed and nothing is fused beforehand, but by the
    runtimes that do so: 'folded' folds norms into convolutions, as ``mmcv.cnn.fuse_conv_bn`` does; what is exported is
    folded too (see :func:`~dynconv_mm.conversion.export.export`); 'compile' has torch's Inductor take weights for
    constants.
    """
    height, width = image_size(setting)
    if setting.runtime in EXPORTED:
        images = random_images(setting.batch, 3, height, width)
        batch = 1 if setting.dynamic else setting.batch  # the same file takes any
        run = load_onnx(_exported(name, batch, height, width, setting.runtime, setting.dynamic),
                        setting.runtime, setting.threads)
        return lambda: run(images)
    torch.manual_seed(0)
    model = build_network(name).train(setting.training).to(setting.device)
    images, samples = _detection_inputs(model, setting) if is_detector(name) else \
        (torch.randn(setting.batch, 3, height, width).to(setting.device), None)
    if setting.channels_last:
        model, images = (value.to(memory_format=torch.channels_last) for value in (model, images))
    if setting.runtime == 'folded':
        from ..compat.fuse_conv_bn import fuse_conv_bn  # which needs mmcv
        fuse_conv_bn(model)
    run = _compile_frozen(model, images) if setting.runtime == 'compile' else model
    dtype = DTYPES[setting.dtype]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9) if setting.training else None

    def forward() -> object:
        # torch 2.1 refuses float32 as autocast's type even where that is off
        with torch.autocast(setting.device, dtype) if dtype != torch.float32 else contextlib.nullcontext(), \
                use_plan(plan) if plan != 'auto' else contextlib.nullcontext():
            if samples is None:
                return run(images)[-1].float().mean()
            if setting.training:
                return model.parse_losses(run(images, samples, mode='loss'))[0]
            return run(images, samples, mode='predict')

    def step() -> None:
        if optimizer is None:
            with torch.no_grad():
                forward()
            return
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()

    return step


def _compile_frozen(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The compiled network, with weights as constants: a setting that Dynamo asks for too, so that it is no matter of
    ``torch.compile``'s options."""
    from torch._inductor import config
    run = torch.compile(model)
    with config.patch(freezing=True), torch.no_grad():
        run(images)
    return run


def _detection_inputs(detector: nn.Module, setting: Setting) -> tuple[torch.Tensor, list]:
    """Images as the detector's preprocessor puts them out, and as many annotated objects in each as COCO has on
    average."""
    from mmdet.testing import demo_mm_inputs  # only where there is a detector
    packed = demo_mm_inputs(setting.batch, [(3, *image_size(setting))] * setting.batch, [OBJECTS] * setting.batch,
                            num_classes=80, with_mask=True, with_semantic=True)
    data = detector.data_preprocessor(packed, setting.training)
    return data['inputs'], data['data_samples']


def image_size(setting: Setting) -> tuple[int, int]:
    """Height and width of the images."""
    return setting.size, setting.size if setting.width is None else setting.width


@functools.cache
def _exports() -> tempfile.TemporaryDirectory:
    """Where the exported networks lie while the process runs."""
    return tempfile.TemporaryDirectory(prefix='dynconv-mm-benchmark-')


@functools.cache
def _exported(name: str, batch: int, height: int, width: int, runtime: str, dynamic: bool) -> Path:
    """The file of an exported network: the same for all numbers of threads."""
    torch.manual_seed(0)
    path = Path(_exports().name, f'{name}-{batch}-{height}-{width}-{runtime}-{dynamic}.onnx')
    return export(build_network(name), path, batch=batch, input_size=(height, width), runtime=runtime, dynamic=dynamic,
                  settle=True).path


def compare(networks: Iterable[str], plans: Iterable[str], setting: Setting, rounds: Iterable[int],
            memory: bool = True) -> list[Result]:
    """Time networks beside the static network of the first, in turns in one process; each plan beside the others.

    Args:
        networks (Iterable[str]): which, see :func:`build_network`; all of them stand in for the same static one.
        plans (Iterable[str]): 'auto' or names in :data:`~dynconv_mm.functional.PLANS`, for those networks that mix
            kernels.
        setting (Setting): mode, batch, threads and so on.
        rounds (Iterable[int]): see :func:`~dynconv_mm.analysis.timing.time_in_turns`.
        memory (bool): whether to measure the peak memory too, each in a process of its own.

    Returns:
        list[Result]: the static network's first.

    Raises:
        ValueError: ``networks`` do not stand in for one and the same network, or there is none of that name.
    """
    networks, plans = list(networks), list(plans)
    statics = {static_network(name) for name in networks}
    if len(statics) != 1:
        raise ValueError(f'networks must all stand in for one static network, but are compared with {sorted(statics)}')
    keys = [(static, 'auto') for static in statics]
    keys += [(name, plan) for name in networks if (name, 'auto') not in keys
             for plan in (plans if any(mixture in name for mixture in MIXTURES) else ['auto'])]
    torch.set_num_threads(setting.threads)
    if setting.runtime == 'compile':
        torch.compiler.reset()  # what was compiled before counts towards a limit, beyond which nothing is
    timings = time_in_turns({key: make_step(*key[:1], setting, key[1]) for key in keys}, rounds, TURN)
    peaks = {key: peak_megabytes(key[0], setting, key[1]) if memory else None for key in keys}
    first = peaks[keys[0]]
    return [Result(*key, setting, *timings[key], peaks[key], peaks[key] / first if memory else None) for key in keys]


def peak_megabytes(name: str, setting: Setting, plan: str = 'auto') -> float:
    """The most memory that a fresh process held that builds a network and makes two steps, in MB.

    On a CPU it is that of the whole process, Python and torch included; on a GPU what torch allocated.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(_peak_megabytes, name, setting, plan).result()


def _peak_megabytes(name: str, setting: Setting, plan: str) -> float:
    torch.set_num_threads(setting.threads)
    step = make_step(name, setting, plan)
    for _ in range(2):
        step()
    if setting.device != 'cpu':
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == 'linux':  # its getrusage() counts what the parent process held
        return int(re.search(r'VmHWM:\s*(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024 / 1e6
    import resource  # which Windows does not have
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == 'darwin' else 1e3)


def describe_machine(runtime: str = 'pytorch') -> dict[str, str]:
    """What the figures were measured on and with."""
    machine = {
        'processor': processor(),
        'cores': f'{len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}',
        'system': platform.platform(terse=True),
        'Python': platform.python_version(),
        'torch': f'{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}',
        'dynconv_mm': __version__,
    }
    if runtime in EXPORTED:
        machine[runtime] = import_runtime(runtime).__version__
    if torch.cuda.is_available():
        machine['GPU'] = f'{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}'
    malloc = {name: value for name, value in sorted(os.environ.items()) if name.startswith('MALLOC_')}
    if malloc:
        machine['allocator'] = ', '.join(f'{name}={value}' for name, value in malloc.items())
    return machine


def goal(result: Result, memory: bool = False) -> float | None:
    """The ratio that the package means to reach, where it has set itself one."""
    setting = result.setting
    if setting.runtime != 'pytorch':
        goals = RUNTIME_GOALS.get(result.network, {}).get(setting.runtime, ())
        place = next((number for number, (batch, size, width) in enumerate(RUNTIME_SIZES[:len(goals)])
                      if setting == Setting(False, batch, setting.threads, size, width=width, runtime=setting.runtime,
                                            dynamic=setting.dynamic)), None)
        if memory or place is None:
            return None
        return goals[place] * (DYNAMIC_FACTOR if setting.dynamic else 1)
    if result.network not in GOALS or result.plan != 'auto' or setting.batch not in (1, 8) \
            or setting != Setting(setting.training, setting.batch, setting.threads):
        return None
    one, eight, training, training_memory = GOALS[result.network]
    if setting.training:
        return (training_memory if memory else training) if setting.batch == 8 else None
    return None if memory else one if setting.batch == 1 else eight


def markdown(results: list[Result], machine: dict[str, str]) -> str:
    """A table a setting, behind a description of the machine."""
    lines = ['; '.join(f'{name} {value}' for name, value in machine.items()), '']
    settings = sorted(dict.fromkeys(result.setting for result in results), key=lambda setting: (
        setting.training, setting.dynamic, setting.size, setting.threads, setting.batch))
    for setting in settings:
        mode = 'training' if setting.training else 'inference'
        size = f'{setting.size}²' if setting.width is None else f'{setting.size}×{setting.width}'
        runtime = [] if setting.runtime == 'pytorch' else [setting.runtime]
        extras = [size, *runtime, *['any batch and size'] * setting.dynamic, setting.device, setting.dtype,
                  *['channels_last'] * setting.channels_last]
        rows = [result for result in results if result.setting == setting]
        columns = ['network', 'plan', 'ms', 'ratio', 'quartiles', 'to reach']
        if any(result.peak_megabytes is not None for result in rows):
            columns += ['peak MB', 'ratio', 'to reach']
        lines += [f'**{mode}, batch {setting.batch}, {setting.threads} thread{"s" * (setting.threads > 1)}** '
                  f'({", ".join(extras)})', '', f'| {" | ".join(columns)} |',
                  f'| --- | --- |{" ---: |" * (len(columns) - 2)}']
        for result in rows:
            milliseconds = f'{result.milliseconds:.{int(result.milliseconds < 100)}f}'
            cells = [result.network, result.plan, milliseconds, f'{result.ratio:.2f}',
                     '{:.2f}–{:.2f}'.format(*result.quartiles), _cell(goal(result)),
                     _cell(result.peak_megabytes, 0), _cell(result.memory_ratio), _cell(goal(result, memory=True))]
            lines.append(f'| {" | ".join(cells[:len(columns)])} |')
        lines.append('')
    return '\n'.join(lines)


def _cell(value: float | None, digits: int = 2) -> str:
    return '' if value is None else f'{value:.{digits}f}'

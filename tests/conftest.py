"""Fixtures that tests of several folders share."""
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import set_random_seed
from slow_files import SLOW_FILES
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent


def interpret_triton() -> None:
    """Without a GPU, Triton's kernels are tested in its interpreter, for which it asks when it is first imported.

    Only from Triton 3 on: the older one that torch 2.1 imports for itself is left as it is.
    """
    try:
        major = int(version('triton').partition('.')[0])
    except PackageNotFoundError:
        return
    if major >= 3 and not torch.cuda.is_available():
        os.environ.setdefault('TRITON_INTERPRET', '1')


interpret_triton()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before `-m "not slow"` leaves tests out: which these are, and which files it would leave out as a whole."""
    for item in items:
        for mark, others in (('first_is_quick', 0), ('one_at_a_time', 1)):
            names = getattr(item.get_closest_marker(mark), 'args', ())
            if sum(item.callspec.indices[name] > 0 for name in names) > others:
                item.add_marker('slow')
    quick = {item.path for item in items if item.get_closest_marker('slow') is None}
    config.stash[SLOW_FILES] = sorted({str(item.path) for item in items if item.path not in quick})


def pytest_runtest_setup() -> None:
    """Each test, and what it is the first to ask of a wider scope, draws the same numbers in every run, and compiles
    for its own sizes: torch would take them for sizes that change if a test before it had compiled for others."""
    set_random_seed(0)
    if 'torch._dynamo' in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(autouse=True)
def scopes(monkeypatch):
    """Each test starts without a default scope: another's, say mmdet, would hide mmpretrain's modules."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())


@pytest.fixture(scope='session')
def root() -> Path:
    """The project's folder."""
    return ROOT


def shapes(tree: dict, prefix: str = '') -> dict[str, list[int]]:
    """A tree of modules as the shapes of a state dict."""
    flat = {}
    for name, value in tree.items():
        flat.update(shapes(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value})
    return flat


@pytest.fixture(scope='session')
def released_shapes():
    """Names and shapes of a released model's weights: of 'odconv4x_resnet50', 'dcd_mobilenetv2_100', 'rednet26' …

    RedNet's are of the backbone alone.
    """
    files = sorted((ROOT / 'tests' / 'data').glob('*_names.json'))
    models = {name: tree for file in files for name, tree in json.loads(file.read_text()).items()}
    return lambda name: shapes(models[name])


@pytest.fixture(scope='session')
def load_tool():
    """Import a module of tools/ or scripts/, which are no packages; as when it is run, it finds its neighbours."""

    def load(name: str):
        file, = (*ROOT.glob(f'tools/*/{name}.py'), *ROOT.glob(f'scripts/{name}.py')) or (ROOT / f'tools/{name}.py', )
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(file.parent)
            spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope='session', autouse=True)
def packages_are_read_once(load_tool):
    """There are hundreds of configs, and no test changes what is installed."""
    with load_tool('pages').packages_read_once():
        yield


@pytest.fixture(scope='session')
def digits(tmp_path_factory, load_tool) -> Path:
    """A handful of images of the demo's data set."""
    folder = tmp_path_factory.mktemp('digits') / 'digits'
    load_tool('make_digits_coco').main([str(folder), '--train', '10', '--val', '4'])
    return folder


@pytest.fixture
def tiny_classifier(tmp_path):
    """A classifier's config on disk and a checkpoint as a training leaves it, by the type of the backbone; its data
    set, six images of random numbers to validate on, is below ``tmp_path / 'digits'``."""
    import numpy as np
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    from PIL import Image

    from dynconv_mm.conversion import write_checkpoint
    data = tmp_path / 'digits'
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('one', 'zero'):
            (data / split / name).mkdir(parents=True)
            for index in range(3):
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(data / split / name / f'{index}.png')

    def make(backbone: str) -> tuple[Path, Path]:
        config = Config.fromfile(ROOT / 'configs/demo/resnet18-thin_digits.py')
        init_default_scope(config.default_scope)
        config.model.backbone.update(type=backbone, base_channels=4, stem_channels=16)
        config.model.head.update(in_channels=32, num_classes=3)
        if backbone in ('DCDCResNet', 'RedNet'):
            config.model.backbone.update(base_channels=8, group_channels=4, depth=26)
            config.model.head.in_channels = 256
        for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
            loader.dataset.data_root = str(data)
            loader.dataset.pipeline[1].scale = (32, 32)
        torch.manual_seed(0)
        model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
        path, checkpoint = tmp_path / f'{backbone}.py', tmp_path / f'{backbone}.pth'
        config.dump(path)
        write_checkpoint(checkpoint, dict(state_dict=model.state_dict(),
                                          meta=dict(dataset_meta=dict(classes=('zero', 'one', 'two')))))
        return path, checkpoint

    return make


@pytest.fixture(scope='session')
def run():
    """Run a command as a user would, from the project's folder; returns the finished process with its output."""

    def run_command(*command: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
        return subprocess.run([str(part) for part in command], cwd=cwd, env={**os.environ, 'PATH': path, **env},
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)

    return run_command


@pytest.fixture
def assert_equal_in_value_and_gradient() -> Callable:
    """Compare two functions of the same inputs, and the gradients of the sum of their squares, to 1e-9."""

    def check(actual: Callable, expected: Callable, inputs: dict[str, Tensor]) -> None:
        (y, gradients), (z, expected_gradients) = (
            (output, torch.autograd.grad((output ** 2).sum(), list(inputs.values())))
            for output in (actual(), expected()))
        assert y.shape == z.shape and (y - z).abs().max() <= 1e-9
        for name, gradient, other in zip(inputs, gradients, expected_gradients):
            assert (gradient - other).abs().max() <= 1e-9 * (1 + other.abs().max()), name
            assert other.any(), f'no gradient for {name}: nothing is compared'

    return check


@pytest.fixture
def make_random() -> Callable:
    """Give all parameters of a layer random numbers, so that none can be left out unnoticed."""

    def randomize(layer: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=.5)
        return layer

    return randomize

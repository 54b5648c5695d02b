"""The built wheel: what it carries, and that its configs resolve before the package is imported."""
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import mmengine
import pytest

import dynconv_mm

pytestmark = pytest.mark.xdist_group('packaging')  # one worker: the wheel is shared


@pytest.fixture(scope='module')
def sdist(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sdist')
    source = folder / 'source'
    # a copy, so that no build folder is left in, or taken from, the project's
    subprocess.run(['git', 'clone', '-q', str(root), str(source)], check=True)
    code = 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])'
    subprocess.run([sys.executable, '-c', code, str(folder)], cwd=source, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob('*.tar.gz'))


@pytest.fixture(scope='module')
def wheel(sdist, tmp_path_factory):
    """Built from the source distribution, as `python -m build` does."""
    folder = tmp_path_factory.mktemp('wheel')
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(folder),
                    str(sdist)], check=True)
    return next(folder.glob('*.whl'))


def test_sdist(sdist):
    """What building needs, and no more of the repository."""
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert names >= {'setup.py', 'pyproject.toml', 'README.md', 'requirements/runtime.txt', 'dynconv_mm_scope.pth',
                     'model-index.yml', 'tools/train.py', 'configs/odconv/metafile.yml', 'dynconv_mm/py.typed'}
    assert not [name for name in names if name.startswith(('tests/', 'docs/', 'scripts/', 'dynconv_mm/.mim'))]


def test_content(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith(f'dynconv_mm-{dynconv_mm.__version__}-')
    assert names >= {'dynconv_mm/__init__.py', 'dynconv_mm/py.typed', 'dynconv_mm/functional/costs_cpu.json',
                     'dynconv_mm_scope.pth', 'dynconv_mm/.mim/model-index.yml',
                     'dynconv_mm/.mim/tools/dataset_converters/make_digits_coco.py',
                     'dynconv_mm/.mim/configs/odconv/metafile.yml',
                     'dynconv_mm/.mim/configs/odconv/odconv4x-resnet50_8xb32_in1k.py'}
    assert not [name for name in names if name.startswith(('tests/', 'scripts/')) or name.endswith('.pyc')]
    tools = [Path(name).name for name in names if name.startswith('dynconv_mm/.mim/tools/')]
    assert {'train.py', 'test.py', 'dist_train.sh', 'complexity.py'} <= {*tools}
    assert len(tools) == len({*tools}), 'mim could not tell two tools of the same name apart'


def test_requires_no_openmmlab_package_by_name(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(name for name in archive.namelist() if name.endswith('METADATA'))).decode()
    required = [line.split()[1] for line in metadata.splitlines()
                if line.startswith('Requires-Dist:') and 'extra ==' not in line]
    assert not [name for name in required if name.startswith(('mm', 'onedl'))]
    assert {'mim', 'mmdet', 'mmpretrain'} <= {line.split()[1] for line in metadata.splitlines()
                                              if line.startswith('Provides-Extra:')}


def test_description_for_a_package_index(wheel):
    """It has no files beside it: nothing in it may be relative to the repository."""
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(name for name in archive.namelist() if name.endswith('METADATA'))).decode()
    assert 'Description-Content-Type: text/markdown' in metadata and '# dynconv_mm' in metadata
    assert not re.findall(r'\]\((?!https?:|#)[^)]*\)', re.sub(r'^```.*?^```', '', metadata, flags=re.M | re.S))


def test_configs_resolve_without_an_import(wheel, tmp_path, run):
    site = tmp_path / 'site'
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / 'mine.py').write_text("_base_ = 'dynconv_mm::odconv/odconv4x-resnet18_8xb32_in1k.py'\n")
    code = ('import site, sys; site.addsitedir(sys.argv[1]); sys.path.insert(0, sys.argv[1])\n'
            'from mmengine.config import Config\n'
            'assert "dynconv_mm" not in sys.modules\n'
            'config = Config.fromfile("mine.py")\n'
            'import dynconv_mm; assert dynconv_mm.__file__.startswith(sys.argv[1])\n'
            'print(config.model.backbone.kernel_num, config.model.backbone.type)\n')
    pytest.importorskip('mmpretrain')
    done = run(sys.executable, '-c', code, site, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == '4 ODConvResNet', done.stdout


def test_start_up_line_imports_nothing(root, run):
    """Every process of the environment runs it: not even modules of the standard library, which take milliseconds."""
    code = ('import sys; sys.path.append(sys.argv[1]); before = set(sys.modules); import dynconv_mm_scope\n'
            'print(set(sys.modules) - before)')
    assert run(sys.executable, '-I', '-S', '-c', code, root).stdout.strip() == "{'dynconv_mm_scope'}"


def test_start_up_line_is_gone_when_it_has_served(root, run):
    code = ('import sys; sys.path += sys.argv[1:]; import dynconv_mm_scope as scope\n'
            'assert scope._AddEntry in sys.meta_path\n'
            'from mmengine.config.utils import MODULE2PACKAGE\n'
            'print(scope._AddEntry in sys.meta_path, MODULE2PACKAGE["dynconv_mm"])')
    packages = Path(mmengine.__file__).parents[1]
    assert run(sys.executable, '-S', '-c', code, root, packages).stdout.split() == ['False', 'dynconv_mm.registry']


def test_import_needs_neither_mmdet_nor_mmpretrain(run):
    code = ('import sys; sys.modules["mmdet"] = sys.modules["mmpretrain"] = None; import dynconv_mm, torch\n'
            'from mmengine.registry import MODELS\n'
            'assert MODELS.build(dict(type="ODConv2d", in_channels=2, out_channels=3, kernel_size=1)).kernel_num == 4\n'
            'dynconv_mm.DropoutLinearClsHead(dropout=0.1, num_classes=2, in_channels=4)')
    done = run(sys.executable, '-c', code)
    assert done.returncode == 1
    assert 'DropoutLinearClsHead is built on mmpretrain' in done.stdout.splitlines()[-1]

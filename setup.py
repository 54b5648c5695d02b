"""Packaging: the package, its ``.mim`` folder and the start-up line that makes ``dynconv_mm::`` known."""
import re
import shutil
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py

from distutils.command.install_data import install_data  # isort: skip; setuptools' own copy, importable after it

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'model-index.yml')
# --- the owner's to set ---
REPOSITORY = None  # its address on the web; links of the README lead there from a package index, which has no files
LICENCE = None  # its SPDX expression, such as 'Apache-2.0', when there is a file LICENSE
# --------------------------


class BuildWithMim(build_py):
    """Carries configs, tools and model index in ``dynconv_mm/.mim``, where mim and ``_base_`` look for them."""

    def run(self):
        """Build, then put the folder beside the package, as links where the installation is editable."""
        super().run()
        if getattr(self, 'editable_mode', False):  # setuptools < 64 has no such installation
            self._fill(ROOT / 'dynconv_mm' / '.mim', lambda source, target: target.symlink_to(source))
        elif not self.dry_run:
            self._fill(Path(self.build_lib) / 'dynconv_mm' / '.mim', self._copy)

    @staticmethod
    def _fill(folder, put):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in MIM:
            put(ROOT / name, folder / name)

    @staticmethod
    def _left_out(folder, names):
        """Compiled files, and old names of tools: mim finds a tool by its name in whatever folder it is."""
        moved = {path.name for path in Path(folder).glob('*/*.py')} if Path(folder) == ROOT / 'tools' else set()
        return {'__pycache__', *moved}.intersection(names)

    @staticmethod
    def _copy(source, target):
        if source.is_dir():
            shutil.copytree(source, target, ignore=BuildWithMim._left_out)
        else:
            shutil.copyfile(source, target)


class InstallStartUpLine(install_data):
    """Puts data files, of which the ``.pth`` is the only one, beside the package: Python reads it there."""

    def finalize_options(self):
        """The folder of the packages, in place of the environment's."""
        super().finalize_options()
        self.install_dir = self.get_finalized_command('install').install_lib


class WithData(Distribution):
    """An editable installation asks ``has_data``, which setuptools does not define, before it installs data."""

    def has_data(self):
        """Whether there are data files."""
        return self.has_data_files()


def requirements(name):
    """The packages that a file of ``requirements/`` lists."""
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def long_description():
    """The README as a package index can show it: links and pictures lead to the repository, or are left out."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    relative = r'\((?!\w+:|#)([^)\s]+)\)'
    if REPOSITORY is not None:
        text = re.sub(r'!\[([^]]*)\]' + relative, rf'![\1]({REPOSITORY}/raw/main/\2)', text)
        return re.sub(r'(?<!!)\[([^]]*)\]' + relative, rf'[\1]({REPOSITORY}/blob/main/\2)', text)
    text = re.sub(r'!\[[^]]*\]' + relative, '', text)
    return re.sub(r'\[([^]]*)\]' + relative, r'\1', text)


setup(
    name='dynconv-mm',
    version=re.search(r"__version__ = '(.*)'", (ROOT / 'dynconv_mm' / 'version.py').read_text())[1],
    description='Dynamic convolution (ODConv, DCD, DCDC and their baselines) for OpenMMLab',
    long_description=long_description(),
    long_description_content_type='text/markdown',
    keywords='dynamic convolution, ODConv, CondConv, involution, object detection, OpenMMLab, PyTorch',
    **({} if LICENCE is None else dict(license=LICENCE)),
    project_urls={} if REPOSITORY is None else {
        'Source': REPOSITORY, 'Changelog': f'{REPOSITORY}/blob/main/CHANGELOG.md', 'Issues': f'{REPOSITORY}/issues'},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        # layers, backbones, dynamicize and hooks; the stacks are of 3.11
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=('dynconv_mm', 'dynconv_mm.*', 'dynconv_mm_scope')),
    package_data={'dynconv_mm': ['py.typed'], 'dynconv_mm.functional': ['costs_cpu.json', 'costs_gpu.json']},
    data_files=[('', ['dynconv_mm_scope.pth'])],
    python_requires='>=3.9',
    # mmengine, mmcv, mmdet and mmpretrain exist under two distribution names each (the releases and the onedl
    # forks): to require one by name would install a second copy beside the other. The extras name the releases.
    install_requires=requirements('runtime.txt'),
    extras_require={
        'mim': requirements('mminstall.txt'),
        'mmdet': [*requirements('mminstall.txt'), 'mmdet>=3.0.0,<4.0.0'],
        'mmpretrain': [*requirements('mminstall.txt'), 'mmpretrain>=1.0.0,<2.0.0'],
        'cpu': requirements('cpu.txt'),
        'onnx': requirements('onnx.txt'),
        'openvino': [*requirements('onnx.txt'), 'openvino'],
        'safetensors': ['safetensors'],
        'tests': requirements('tests.txt'),
        'lint': requirements('lint.txt'),
        'docs': requirements('docs.txt'),
    },
    cmdclass=dict(build_py=BuildWithMim, install_data=InstallStartUpLine),
    distclass=WithData,
    zip_safe=False,
)

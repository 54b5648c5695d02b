"""The site that `make docs` builds: strictly, with every page of docs/ and of the configs, and all public names."""
from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import griffe
import pytest

pytestmark = pytest.mark.xdist_group('site')  # one worker: the built site is shared


def build(root: Path, target: Path) -> subprocess.CompletedProcess:
    """Build the site of a checkout, as `make docs` does; returns the finished process with its output."""
    return subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(target),
                           '--config-file', str(root / 'mkdocs.yml')], cwd=target.parent, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)


@pytest.fixture(scope='module')
def site(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('site') / 'site'
    done = build(root, folder)
    assert done.returncode == 0, done.stdout
    return folder


def load(root: Path, name: str):
    """A module of docs/_site/."""
    spec = importlib.util.spec_from_file_location(name, root / 'docs' / '_site' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages(site, root):
    for page in (root / 'docs').glob('*.md'):
        assert (site / f'{page.stem}.html').exists()
    for page in (root / 'configs').glob('*/README.md'):
        assert (site / 'configs' / page.parent.name / 'index.html').exists()
    index = (site / 'index.html').read_text(encoding='utf-8')
    assert '1. Install' in index and '5. Deploy it' in index  # the tour, not the README
    headings = re.findall(r'nav-link dropdown-toggle"[^>]*>(\w+)<', index)
    assert headings == ['Start', 'Methods', 'Guide', 'Configs', 'API', 'Project']
    assert not list(site.rglob('*.pyc')) and not (site / '_site').exists()


def test_dark_mode(site):
    index = (site / 'index.html').read_text(encoding='utf-8')
    assert 'theme-menu' in index and 'data-bs-theme' in (site / 'js' / 'darkmode.js').read_text(encoding='utf-8')
    code = (site / 'css' / 'code.css').read_text(encoding='utf-8')
    assert code.count('[data-bs-theme=light] .highlight') > 20 and code.count('[data-bs-theme=dark] .highlight') > 20


def test_figures_in_tables_do_not_wrap(site):
    """The style sheet knows the cells that Markdown aligns to the right."""
    style = (site / 'css' / 'site.css').read_text(encoding='utf-8')
    assert re.search(r'td\[style\*="right"\][^{}]*\{[^}]*white-space: nowrap', style)
    for page in ('comparison', 'performance', 'evaluation'):
        assert '<td style="text-align: right;">' in (site / f'{page}.html').read_text(encoding='utf-8')


def test_pictures_are_there_and_told(site):
    """Each has a text for those who do not see it."""
    count = 0
    for page in site.glob('*.html'):
        for tag in re.findall(r'<img [^>]*>', page.read_text(encoding='utf-8')):
            source, alt = (re.search(rf'{name}="([^"]*)"', tag) for name in ('src', 'alt'))
            assert (page.parent / source[1]).is_file() and len(alt[1]) > 10, (page.name, tag)
            count += 1
    assert count >= 10


def test_formulas(site, root):
    """An equation for each layer of the README's table, as MathML."""
    page = (site / 'methods.html').read_text(encoding='utf-8')
    layers = re.findall(r'^\| \[.*?\) \| `(\w+)`', (root / 'README.md').read_text(encoding='utf-8'), re.MULTILINE)
    sections = page.split('<h2')[1:]
    shown = [layer for layer in layers for section in sections
             if f'<code>{layer}</code>' in section and 'display="block"' in section]
    assert len(layers) > 12 and shown == layers and '$' not in re.sub('<[^>]*>', '', page)


def test_what_is_no_formula(root):
    text = load(root, 'pages').with_formulas('`$PATH` costs $5, and $x^2$:\n\n$$a = b$$\n')
    assert text.startswith('`$PATH` costs $5, and <span><math')
    assert text.count('<math') == 2 and 'display="block"' in text


def test_links_lead_from_the_repository_to_the_site(site, root):
    """To other pages, and to configs, which the site carries as they are."""
    page = (site / 'configs' / 'odconv' / 'index.html').read_text(encoding='utf-8')
    config = 'odconv4x-resnet50_8xb32_in1k.py'
    assert f'href="{config}"' in page
    assert (site / 'configs' / 'odconv' / config).read_text() == (root / 'configs' / 'odconv' / config).read_text()
    assert 'href="performance.html"' in (site / 'index.html').read_text(encoding='utf-8')


def test_nothing_comes_from_the_network(site):
    for page in site.rglob('*.html'):
        text = page.read_text(encoding='utf-8')
        assert 'src="http' not in text and '<link href="http' not in text and 'stylesheet" href="http' not in text, page


def test_public_names(site, root):
    """Every public name has a place, with its arguments' explanations, formula and example."""
    pages = load(root, 'pages')
    for package, text in pages.api_pages().items():
        html = (site / package.replace('.md', '.html')).read_text(encoding='utf-8')
        for line in text.splitlines():
            if line.startswith('        - '):
                assert f'id="{Path(package).stem}.{line.split()[-1]}"' in html
    layers = (site / 'api' / 'dynconv_mm.layers.html').read_text(encoding='utf-8')
    assert layers.count('<math') >= 8
    assert ':class:' not in layers and ':math:' not in layers and '.. math' not in layers and '&gt;&gt;&gt;' in layers
    assert 'device, dtype' in layers  # the end of names on two lines
    assert 'href="dynconv_mm.functional.html#dynconv_mm.functional.PLANS"' in layers


def test_a_broken_link_fails(root, tmp_path):
    copy = tmp_path / 'copy'
    for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'mkdocs.yml'):
        copy.mkdir(exist_ok=True)
        shutil.copyfile(root / name, copy / name)
    shutil.copytree(root / 'docs', copy / 'docs')
    shutil.copytree(root / 'configs', copy / 'configs')
    package = copy / 'dynconv_mm'
    (package / 'layers').mkdir(parents=True)
    (package / '__init__.py').write_text('"""Package."""\n')
    (package / 'layers' / '__init__.py').write_text('"""Layers."""\nX = 1\n"""One."""\n__all__ = [\'X\']\n')
    (copy / 'docs' / 'new.md').write_text('# New\n\n[gone](../tools/gone.py)\n[also](performance.md#nowhere)\n')
    done = build(copy, tmp_path / 'site')
    assert done.returncode != 0
    assert 'gone.py' in done.stdout and 'nowhere' in done.stdout


@pytest.mark.parametrize('path, place', [
    ('README.md', 'index.md'), ('docs/performance.md', 'performance.md'),
    ('configs/odconv/README.md', 'configs/odconv/README.md'),
])
def test_place_in_the_site(root, path, place):
    assert load(root, 'pages').site_path(path) == place


def test_docstring_as_markdown(root):
    extension = load(root, 'docstrings').Markdown()
    extension.public = {'ODConv2d': 'dynconv_mm.layers.ODConv2d'}
    text = extension.markdown('A :class:`~dynconv_mm.layers.ODConv2d` of :math:`x^2`, no :class:`~torch.nn.Conv2d`.\n\n'
                              '    .. math:: y =\n        W x\n\n    Args:\n        a, b,\n            c: as in.\n'
                              '        d: other.\n\n    Example:\n        >>> 1\n')
    assert text.startswith('A [`ODConv2d`][dynconv_mm.layers.ODConv2d] of <span><math')
    assert 'no `Conv2d`.' in text
    assert text.count('<math') == 2 and '.. math' not in text and 'display="block"' in text
    assert '        a, b, c: as in.\n        d: other.\n' in text
    assert '    Examples:\n' in text


def test_every_role_is_known(root):
    """In the package's docstrings: what is none would be shown as it is written."""
    package = griffe.load('dynconv_mm', search_paths=[str(root)],
                          extensions=griffe.load_extensions(str(root / 'docs' / '_site' / 'docstrings.py')))
    module = load(root, 'docstrings')
    for part in (package, *module.modules(package)):
        for item in (part, *part.classes.values(), *part.functions.values()):
            if not item.is_alias and item.docstring:
                assert ':`' not in item.docstring.value and '.. math' not in item.docstring.value, item.path

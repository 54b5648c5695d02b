"""The pages of the site that are not in ``docs/``: configs, contributing, changelog, API; formulas (a hook of mkdocs).

The site has the repository's layout, with the content of ``docs/`` at the top; a link from one file to another is
followed there, whether it is a page of the site or, as a config, a file to look at. So no page is kept twice. The
README is not on it: its place is taken by ``docs/index.md``.
"""
from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent.parent
#: the pages of docs/ in their order, by heading; those that no heading names follow under the last one
NAVIGATION = {
    'Start': ['installation.md', 'training.md', 'troubleshooting.md'],
    'Methods': ['methods.md', 'gallery.md'],
    'Guide': ['warm_start.md', 'conversion.md', 'dynamicize.md', 'neighbours.md', 'visualization.md', 'evaluation.md',
              'complexity.md', 'export.md', 'performance.md', 'glyphs.md'],
    'Configs': [],
    'API': [],
    'Project': ['CONTRIBUTING.md', 'CHANGELOG.md', 'paper_tables.md', 'training_parity.md', 'comparison.md',
                'performance_goals.md', 'stress.md'],
}
STYLES = {'light': 'default', 'dark': 'github-dark'}  # of code, by the mode of the page
LINK = re.compile(r'(?<=\]\()(?!\w+:)([^)#\s]*)(#[^)\s]*)?(?=[)\s])')
CODE = re.compile(r'^```.*?^```|`[^`\n]+`', re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r'\$\$(.+?)\$\$|(?<![\w$])\$(\S(?:[^$\n]*\S)?)\$(?![\w$])', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, the files that they link to, the style of code, and the navigation."""
    sources = {file.src_uri: f'docs/{file.src_uri}' for file in files.documentation_pages()}
    texts = {name: (ROOT / name).read_text(encoding='utf-8') for name in (
        *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob('configs/*/README.md'))), 'CONTRIBUTING.md',
        'CHANGELOG.md')}
    sources.update({name: name for name in texts})
    for name, text in {**texts, **api_pages()}.items():
        files.append(File.generated(config, name, content=text))
    config.extra['sources'] = sources
    for name, source in sources.items():
        text = texts[name] if name in texts else (ROOT / source).read_text(encoding='utf-8')
        for match in LINK.finditer(CODE.sub('', text)):
            target = repository_path(match[1], source)
            if (ROOT / target).is_file() and site_path(target) not in files.src_uris:
                files.append(File.generated(config, site_path(target), abs_src_path=str(ROOT / target)))
    css = '\n'.join(HtmlFormatter(style=style).get_style_defs(f'[data-bs-theme={mode}] .highlight')
                    for mode, style in STYLES.items())
    files.append(File.generated(config, 'css/code.css', content=css))
    config.nav = navigation(files)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a file of the repository into those of the site, and LaTeX formulas into MathML."""
    name = page.file.src_uri
    if name not in config.extra['sources']:
        return markdown

    def follow(match: re.Match) -> str:
        target = site_path(repository_path(match[1], config.extra['sources'][name]))
        return ('' if target == name else posixpath.relpath(target, posixpath.dirname(name) or '.')) + (match[2] or '')

    parts = re.split(r'(^```.*?^```)', markdown, flags=re.MULTILINE | re.DOTALL)
    return ''.join(part if part.startswith('```') else LINK.sub(follow, with_formulas(part)) for part in parts)


def with_formulas(text: str) -> str:
    """Markdown whose ``$…$`` and ``$$…$$`` are MathML; code is left as it is."""
    return ''.join(part if part.startswith('`') else FORMULA.sub(formula, part)
                   for part in re.split(r'(`[^`]+`)', text))


def formula(match: re.Match) -> str:
    """A formula as MathML: a paragraph of its own for ``$$``."""
    if match[1] is not None:
        return convert(' '.join(match[1].split()), display='block')
    return f'<span>{convert(match[2])}</span>'  # alone at the beginning of a line, <math> would be a paragraph


def repository_path(link: str, source: str) -> str:
    """What the Markdown file ``source`` names by ``link``, as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link)) if link else source


def site_path(path: str) -> str:
    """Where a file of the repository stands in the site."""
    return 'index.md' if path == 'README.md' else path.removeprefix('docs/')


def api_pages() -> dict[str, str]:
    """A page for each package that has names of its own: those that no package below it lists too."""
    public = {}
    for init in sorted(ROOT.glob('dynconv_mm/**/__init__.py')):
        names = public_names(init)
        if names:
            public['.'.join(init.parent.relative_to(ROOT).parts)] = names
    pages = {}
    for package, names in public.items():
        below = {name for other in public if other.startswith(f'{package}.') for name in public[other]}
        members = sorted(set(names) - below)
        if members and package != 'dynconv_mm':
            listed = ''.join(f'        - {name}\n' for name in members)
            pages[f'api/{package}.md'] = f'# {package}\n\n::: {package}\n    options:\n      members:\n{listed}'
    return pages


def public_names(init: Path) -> list[str]:
    """``__all__`` of a module, which is read and not imported."""
    for statement in ast.parse(init.read_text(encoding='utf-8')).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], 'id', None) == '__all__':
            return ast.literal_eval(statement.value)
    return []


def navigation(files: Files) -> list:
    """The tour, then :data:`NAVIGATION` with the pages of the configs and of the API."""
    names = [file.src_uri for file in files.documentation_pages()]
    found = {heading: [name for name in pages if name in names] for heading, pages in NAVIGATION.items()}
    found['Configs'] = sorted(name for name in names if name.startswith('configs/'))
    found['API'] = [{name.removeprefix('api/').removesuffix('.md'): name}
                    for name in sorted(names) if name.startswith('api/')]
    named = {'index.md', *(name for pages in NAVIGATION.values() for name in pages)}
    found['Project'] += sorted(name for name in names if '/' not in name and name not in named)
    return [{'Tour': 'index.md'}, *({heading: pages} for heading, pages in found.items() if pages)]

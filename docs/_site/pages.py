"""The pages of the site that are not in ``docs/``: README, installation, quick start, configs, API (a hook of mkdocs).

The site has the repository's layout, with the content of ``docs/`` at the top; a link from one file to another is
followed there, whether it is a page of the site or, as a config, a file to look at. So no page is kept twice.
"""
from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent.parent
SECTIONS = {'Two commands': 'quick_start.md', 'Installation into your own environment': 'installation.md'}
"""Sections of the README that have a page of their own."""
FIRST = ('index.md', *SECTIONS.values())
LAST = ('CONTRIBUTING.md', 'CHANGELOG.md')
LINK = re.compile(r'(?<=\]\()(?!\w+:)([^)#\s]*)(#[^)\s]*)?(?=[)\s])')
FENCE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, the files that they link to, and the navigation."""
    sources = {file.src_uri: f'docs/{file.src_uri}' for file in files.documentation_pages()}
    texts = {**readme_pages(), **{name: (ROOT / name).read_text(encoding='utf-8') for name in (
        *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob('configs/*/README.md'))), *LAST)}}
    sources.update({name: 'README.md' if name in FIRST else name for name in texts})
    for name, text in {**texts, **api_pages()}.items():
        files.append(File.generated(config, name, content=text))
    config.extra['sources'] = sources
    for name, source in sources.items():
        text = texts[name] if name in texts else (ROOT / source).read_text(encoding='utf-8')
        for match in LINK.finditer(FENCE.sub('', text)):
            target = repository_path(match[1], source)
            if (ROOT / target).is_file() and site_path(target) not in files.src_uris:
                files.append(File.generated(config, site_path(target), abs_src_path=str(ROOT / target)))
    config.nav = navigation(files)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a file of the repository into those of the site."""
    name = page.file.src_uri
    if name not in config.extra['sources']:
        return markdown

    def replace(match: re.Match) -> str:
        target = site_path(repository_path(match[1], config.extra['sources'][name]), match[2])
        return ('' if target == name else posixpath.relpath(target, posixpath.dirname(name) or '.')) + (match[2] or '')

    parts = re.split(f'({FENCE.pattern})', markdown, flags=FENCE.flags)
    return ''.join(part if part.startswith('```') else LINK.sub(replace, part) for part in parts)


def repository_path(link: str, source: str) -> str:
    """What the Markdown file ``source`` names by ``link``, as a path in the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link)) if link else source


def site_path(path: str, anchor: str | None = None) -> str:
    """Where a file of the repository, or a section of the README, stands in the site."""
    if path == 'README.md':
        return next((page for title, page in SECTIONS.items() if anchor == f'#{slugify(title, "-")}'), 'index.md')
    return path.removeprefix('docs/')


def readme_pages() -> dict[str, str]:
    """The README as the site's first page, but for the sections that have a page of their own."""
    start, *parts = re.split(r'^(?=## )', (ROOT / 'README.md').read_text(encoding='utf-8'), flags=re.MULTILINE)
    pages, index = {}, [start]
    for part in parts:
        title, _, body = part.partition('\n')
        name = SECTIONS.get(title.removeprefix('## '))
        if name is None:
            index.append(part)
        else:
            pages[name] = f'# {title.removeprefix("## ")}\n{body}'
    missing = set(SECTIONS.values()) - set(pages)
    if missing:
        raise PluginError(f'docs/_site/pages.py: the README has no section for {", ".join(sorted(missing))}; '
                          f'it looks for {", ".join(SECTIONS)}')
    return {'index.md': ''.join(index), **pages}


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
    """First the README, then the pages of ``docs/`` by name, those of the configs and of the API."""
    names = [file.src_uri for file in files.documentation_pages()]
    own = sorted(name for name in names if '/' not in name and name not in (*FIRST, *LAST))
    configs = sorted(name for name in names if name.startswith('configs/'))
    api = sorted(name for name in names if name.startswith('api/'))
    return [{'dynconv_mm': 'index.md'}, {'Installation': 'installation.md'}, {'Quick start': 'quick_start.md'},
            {'Guide': own}, {'Configs': configs},
            {'API': [{name.removeprefix('api/').removesuffix('.md'): name} for name in api]}, {'Project': list(LAST)}]

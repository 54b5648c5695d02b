"""Pages of pictures and tables, in one file without scripts and without anything from the network."""
from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font-family: sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }}
h1 {{ overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; display: block; max-width: 100%; overflow-x: auto; width: max-content; }}
th, td {{ border: 1px solid #bbb; padding: .3rem .8rem; text-align: right; white-space: nowrap; }}
details {{ margin: 1rem 0; }} summary {{ cursor: pointer; margin-bottom: .5rem; }}
.pictures {{ display: grid; gap: 1.5rem; }} .row {{ display: flex; flex-wrap: wrap; gap: 1.5rem; }}
figure {{ margin: 0; overflow-x: auto; }} img {{ max-width: 100%; }} .row > * {{ max-width: min(38rem, 100%); }}
.pictures > * {{ min-width: 0; }} .pictures img {{ min-width: 40rem; }}
figcaption {{ font-size: .85rem; color: #555; }}
.classes span {{ border-left: 1.2em solid; padding: 0 1rem 0 .4em; white-space: nowrap; }} .classes b {{ color: #222; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #1b1e21; color: #ddd; }} .classes b {{ color: #ddd; }} figcaption {{ color: #aaa; }}
  a {{ color: #7ab8ff; }} th, td {{ border-color: #555; }}
}}
</style></head><body>
<h1>{title}</h1>
{content}
</body></html>
"""


def page(title: str, *parts: str) -> str:
    """A whole page of parts that are HTML; the title is text."""
    return PAGE.format(title=escape(title), content='\n'.join(parts))


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f'<p>{escape(text)}</p>'


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    return '<table>\n' + '\n'.join(
        '<tr>' + ''.join(f'<{tag}>{escape(text)}</{tag}>' for text in row) + '</tr>'
        for tag, row in (('th', titles), *(('td', row) for row in rows))) + '\n</table>'


def folded(title: str, part: str) -> str:
    """A part that is shown when its title is clicked; the title is text."""
    return f'<details><summary>{escape(title)}</summary>\n{part}\n</details>'


def figure(source: str, alt: str, caption: str) -> str:
    """A picture with its caption; all texts."""
    return (f'<figure><img src="{escape(source)}" alt="{escape(alt)}">'
            f'<figcaption>{escape(caption)}</figcaption></figure>')


def embedded_png(content: bytes) -> str:
    """A PNG as the source of a :func:`figure`, in 256 colours, which take a third of the space."""
    from PIL import Image
    packed = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert('RGB').quantize(256, kmeans=3).save(packed, format='png', optimize=True)
    return 'data:image/png;base64,' + base64.b64encode(packed.getvalue()).decode()

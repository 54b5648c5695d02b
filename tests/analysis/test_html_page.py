"""Pages are whole, self-contained and safe from what names contain."""
import base64
import io
import re

from PIL import Image

from dynconv_mm.analysis import html_page

ODD = '<b>&"'


def png(size=(30, 20)) -> bytes:
    content = io.BytesIO()
    Image.radial_gradient('L').resize(size).convert('RGB').save(content, format='png')
    return content.getvalue()


def test_texts_are_escaped():
    page = html_page.page(ODD, html_page.table([ODD], [[ODD]]), html_page.figure('a.png', ODD, ODD),
                          html_page.folded(ODD, '<i>part</i>'))
    assert '<b>' not in page.partition('</style>')[2]
    assert page.count('&lt;b&gt;&amp;&quot;') == 7
    assert '<i>part</i>' in page and page.startswith('<!doctype html>') and page.endswith('</html>\n')


def test_for_telephones_and_in_the_dark():
    page = html_page.page('title')
    assert '<meta name="viewport" content="width=device-width' in page and '(prefers-color-scheme: dark)' in page
    assert '{{' not in page and '}}' not in page and page.count('{') == page.count('}')


def test_table():
    assert re.sub(r'\s', '', html_page.table(['a', 'b'], [['1', '2'], ['3', '4']])) == (
        '<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></table>')


def test_embedded_png():
    kind, _, content = html_page.embedded_png(png()).partition(',')
    assert kind == 'data:image/png;base64'
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (30, 20) and image.mode == 'P'

"""An example says which toolbox it needs, and with which version it was tested."""
from __future__ import annotations

import re
import sys

import pytest


@pytest.mark.parametrize('example, toolbox', [('timm_classifier', 'timm'), ('ultralytics_yolo', 'ultralytics')])
def test_what_is_not_installed(example, toolbox, load_example, monkeypatch):
    monkeypatch.setitem(sys.modules, toolbox, None)
    message = rf'this example needs {toolbox}, and was tested with [\d.]+: pip install {toolbox}'
    with pytest.raises(SystemExit, match=message):
        load_example(example)


def test_versions_are_those_of_the_tests(root):
    """What the page and the examples say is what ``make test-neighbours`` installs."""
    lines = (root / 'requirements' / 'neighbours.txt').read_text(encoding='utf-8').splitlines()
    pins = dict(line.split('==') for line in lines if '==' in line)
    page = (root / 'docs' / 'neighbours.md').read_text(encoding='utf-8')
    said = dict(re.findall(r'^\| (\w+) \| ([\d.]+) \|', page, re.MULTILINE))
    for file in (root / 'examples').rglob('*.py'):
        text = file.read_text(encoding='utf-8')
        said.update(re.findall(r'needs (\w+), and was tested with ([\d.]+\d)', text))
        said.update(re.findall(r'^# \((\w+) ([\d.]+)\)$', text, re.MULTILINE))
    assert {'timm', 'ultralytics', 'mmsegmentation', 'mmpose', 'mmyolo'} <= set(said)
    assert said == {name: pins[name] for name in said}

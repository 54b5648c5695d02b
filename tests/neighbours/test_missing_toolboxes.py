"""An example says which toolbox it needs, and with which version it was tested."""
from __future__ import annotations

import sys

import pytest


@pytest.mark.parametrize('example, toolbox', [('timm_classifier', 'timm'), ('ultralytics_yolo', 'ultralytics')])
def test_what_is_not_installed(example, toolbox, load_example, monkeypatch):
    monkeypatch.setitem(sys.modules, toolbox, None)
    message = rf'this example needs {toolbox}, and was tested with [\d.]+: pip install {toolbox}'
    with pytest.raises(SystemExit, match=message):
        load_example(example)

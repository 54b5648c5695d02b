#!/usr/bin/env python3
"""Export a network of each method to ONNX for any batch and size, and write the table of docs/export.md."""
from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from pages import ROOT

from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.atomic_write import write_text

PAGE = ROOT / 'docs' / 'export.md'
TABLE = re.compile(r'(<!-- exported -->\n).*?(<!-- /exported -->)', re.DOTALL)
# network, and the size of the images that it is traced with
NETWORKS = {
    'odconv1x-resnet18_8xb32_in1k': (224, 224),
    'dyconv4x-resnet18_8xb32_in1k': (224, 224),
    'condconv8x-mobilenet-v2-w050_8xb32_in1k': (224, 224),
    'dcd-resnet18_8xb32_in1k': (224, 224),
    'rednet26_8xb32_in1k': (224, 224),
    'dcdc-resnet26_8xb32_in1k': (224, 224),
    'retinanet_dcdc-r26_dcdc-fpn_1x_coco': (256, 320),
}


def exported(name: str, input_size: tuple[int, int], folder: Path) -> list[str]:
    """A row of the table."""
    import torch

    from dynconv_mm import get_model
    from dynconv_mm.conversion.export import export
    torch.manual_seed(0)
    written = export(get_model(name), folder / f'{name}.onnx', input_size=input_size, dynamic=True,
                     settle=True)
    outputs = dict.fromkeys(re.sub(r'_\d+$', '', output) for output in written.outputs)
    return [f'`{name}`', str(written.opset), f'{written.size / 2**20:.1f}', f'{written.difference:.0e}',
            ', '.join(f'`{output}`' for output in outputs)]


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    from rich.progress import track
    with tempfile.TemporaryDirectory() as folder:
        rows = [exported(name, size, Path(folder)) for name, size in track(NETWORKS.items(), 'export')]
    text = markdown_table(['network', 'opset', 'MiB', 'difference', 'outputs'], rows)
    write_text(PAGE, TABLE.sub(lambda match: match[1] + text + match[2], PAGE.read_text(encoding='utf-8')))
    print(f'docs/{PAGE.name}: written')


if __name__ == '__main__':
    main()

"""The command lines that read a checkpoint: the tests in tests/stress give each of them files of ill will."""
from __future__ import annotations

#: Of each tool in tools/, by its name, the arguments. ``{checkpoint}`` is the hostile file, ``{config}`` a config of a
#: detector, ``{image}`` a picture, ``{test_dir}`` what `mim test` left, ``{out}`` a path that is not there, and stays
#: so.
COMMANDS: dict[str, list[str]] = {
    'convert_checkpoint': ['{checkpoint}', '{out}'],
    'export': ['{config}', '{checkpoint}', '--part', 'backbone', '--out', '{out}.onnx'],
    'report_detections': ['{config}', '{checkpoint}', '--test-dir', '{test_dir}', '--out', '{out}'],
    'visualize_attention': ['{config}', '{checkpoint}', '{image}', '--out', '{out}'],
    'warm_start': ['{config}', '{checkpoint}', '{out}'],
}

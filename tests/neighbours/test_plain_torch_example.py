"""The example with torch alone learns, and its exported program computes what the network does."""
from __future__ import annotations

import torch


def test_example(load_example, tmp_path):
    example = load_example('plain_torch')
    assert example.main(['--out', str(tmp_path / 'plain.pt2')]) > 0.9
    program = torch.export.load(tmp_path / 'plain.pt2').module()
    images, labels = example.make_batch(20)
    answers = torch.cat([program(image[None])[0] for image in images]).argmax(1)
    assert (answers == labels).float().mean() > 0.7

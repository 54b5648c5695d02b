"""The figures of a network whose norms settle, and which has attentions or none."""
import re

import pytest


def test_table(load_tool, tiny_classifier, capsys):
    pytest.importorskip('mmpretrain')
    networks = [('plain', *tiny_classifier('StaticResNet')), ('dynamic', *tiny_classifier('ODConvResNet'))]
    load_tool('batch_padding').main([str(word) for network in networks for word in ('--network', *network)])
    rows = [[cell.strip() for cell in line.strip('| ').split('|')] for line in capsys.readouterr().out.splitlines()
            if re.match(r'\| (plain|dynamic) ', line)]
    assert [row[:2] for row in rows] == [['plain', '–'], ['dynamic', 'whole maps'], ['dynamic', 'own areas']]
    figures = [[float(value) for cell in row[2:] for value in cell.split(', ')] for row in rows]
    assert all(len(values) == 8 and min(values) >= 0 for values in figures)
    assert max(figures[1]) > 0 and figures[1] != figures[2]

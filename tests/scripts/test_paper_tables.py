"""docs/paper_tables.md is as the tool writes it, and the tool accepts no difference without a reason."""
import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('paper_tables')


@pytest.mark.slow
def test_the_page_is_up_to_date(tool):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    tool.main(['--check'])


def test_a_table_is_up_to_date(tool):
    """The first of DCD, whose networks are small."""
    pytest.importorskip('mmpretrain')
    paper = tool.figures_dcd.PAPER
    table = paper.tables[0]
    assert tool.table_section(table, paper) in tool.PAGE.read_text(encoding='utf-8')
    assert all(row.label in tool.table_section(table, paper) for row in table.rows)


def test_a_stale_page_is_noticed(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'PAGE', tmp_path / 'docs' / 'paper_tables.md')
    monkeypatch.setattr(tool, 'render', lambda: 'the page\n')
    with pytest.raises(SystemExit, match='paper_tables.md is not up to date'):
        tool.main(['--check'])
    assert not tool.PAGE.exists()
    tool.main([])
    assert tool.PAGE.read_text() == 'the page\n' and 'written' in capsys.readouterr().out
    tool.main(['--check'])
    assert 'up to date' in capsys.readouterr().out


@pytest.mark.parametrize(('params', 'madds', 'reasons', 'message'), [
    (44.909, 1897, (), None), (44.891, 1935, (), None),
    (44.909, 1897, ('why', None), 'params are 44.909M, printed 44.90: this needs no reason'),
    (44.909, 1897, (None, 'why'), 'madds are 1897.000M, printed 1.916G: this needs no reason'),
    (44.911, 1916, (), 'params are 44.911M, printed 44.90: say why'), (44.889, 1916, (), 'say why in params_why'),
    (44.90, 1896, (), 'say why in madds_why'), (44.90, 1936, (), 'say why in madds_why'),
    (44.911, 1936, ('why', 'why'), None), (44.911, 1936, ('why', 'because'), 'say why in madds_why'),
])
def test_the_rule(tool, monkeypatch, params, madds, reasons, message):
    row = tool.Row('ODConv', '44.90', '1.916G', tool.Network('config'), *reasons)
    paper = tool.Paper('A paper: on convolution', '', [tool.Table('Table 1', [row])], {'why': 'for a reason'})
    figure = tool.Figure(round(params * 1e6), madds * 10**6)
    monkeypatch.setattr(tool, 'measure', {row.network: {'all': figure}}.__getitem__)
    if message is not None:
        with pytest.raises(SystemExit, match=f"A paper, 'ODConv': .*{message}" if 'are' in message else message):
            tool.table_section(paper.tables[0], paper)
    else:
        text = tool.table_section(paper.tables[0], paper)
        cells = f'| [ODConv](../configs/config.py) | 44.90 | {params:.3f} | '
        assert cells in text and text.endswith(f' | {"why" if reasons else ""} |\n')
        assert f'| 1.916G | {madds / 1e3:.4f}G | {madds / 1916 - 1:+.1%} |' in text


def test_few_digits_are_no_excuse(tool):
    assert tool.params_agree(2_019_000, '2.0') and not tool.params_agree(1_969_000, '2.0')  # 1.6% off
    assert tool.params_agree(26_247_000, '26.3') and not tool.params_agree(26_199_000, '26.3')  # over one digit off


def test_each_reason_is_named_by_a_row(tool):
    row = tool.Row('static', None, '2.0G', tool.Network('config'), None, 'named')
    paper = tool.Paper('A paper', '', [tool.Table('Table 1', [row])], {'named': 'so', 'idle': 'so'})
    with pytest.raises(SystemExit, match='A paper: no row names idle'):
        tool.paper_section(paper)


def test_classifiers_of_the_pretraining_are_added(tool, monkeypatch):
    network, pretrained = tool.Network('detector'), tool.Network('classifier')
    row = tool.Row('Faster R-CNN', '43.80', '207.07G', network, and_classifier_of=pretrained)
    figures = {network: {'all': tool.Figure(40, 7)},
               pretrained: {'all': tool.Figure(25, 3), 'without classifier': tool.Figure(23, 3)}}
    monkeypatch.setattr(tool, 'measure', figures.__getitem__)
    assert tool.ours(row, tool.Table('Table 4', [row])) == tool.Figure(42, 7)


def test_networks_are_what_their_rows_say(tool):
    pytest.importorskip('mmpretrain')
    from paper_rows import classifier
    cfg = tool.config_of(classifier('ResNet50', 'SE', style='caffe'))
    assert (cfg.model.backbone.type, cfg.model.backbone.style) == ('StaticResNet', 'caffe')
    assert cfg.model.backbone.plugins == [dict(cfg=dict(type='DynConvSELayer'), position='after_conv3')]
    assert tool.config_of(classifier('ResNet18', 'ODConv (4×)', kernel_num=2)).model.backbone.kernel_num == 2
    assert tool.config_of(classifier('ResNet18', 'ODConv (4×)')).model.backbone.kernel_num == 4  # left as it was
    assert tool.config_of(classifier('ResNet50', 'CondConv (8×)')).model.head.type == 'CondConvLinearClsHead'
    head = tool.config_of(classifier('ResNet18', 'DCD')._replace(head=(('variant', 'paper'), ))).model.head
    assert (head.type, head.variant) == ('DCDLinearClsHead', 'paper')
    cfg = tool.config_of(tool.Network('mmpretrain::res2net/res2net50-w26-s8_8xb32_in1k', (('scales', 4), )))
    assert (cfg.model.backbone.type, cfg.model.backbone.scales) == ('Res2Net', 4)


def test_each_row_is_a_config(tool, root):
    """A table is one config a row away: but for rows that a paper quotes from others."""
    rows = [(paper.title.partition(':')[0], table.title.partition(':')[0], row) for paper in tool.PAPERS
            for table in paper.tables for row in table.rows]
    others = {(paper, table, row.label) for paper, table, row in rows
              if '::' in row.network.config or not row.network.is_of_the_config}
    assert others == {
        ('DCD', 'Table 4a', '0.35×, static'), ('DCD', 'Table 4a', '0.35×, DY-Conv'),
        ('DCD', 'Table 4b', 'ResNet10, DY-Conv'),
        *(('DCDC', 'Table I', label) for label in ('ResNeXt-50 (32×4d)', 'ResNeXt-101 (32×4d)', 'Res2Net-50 (26w×4s)',
                                                   'Res2Net-101 (26w×4s)'))}
    for _, _, row in rows:
        assert '::' in row.network.config or (root / 'configs' / f'{row.network.config}.py').is_file()
    assert tool.label(rows[0][2]) == '[MobileNetV2 (1.0×)](../configs/static/mobilenet-v2-w100_8xb32_in1k.py)'
    assert tool.label(tool.Row('a', None, None, tool.Network('mmpretrain::a'))) == 'a'

"""Pictures of all scans, each in one split."""
import pytest


def test_folders(load_tool, tmp_path, capsys):
    tool, out = load_tool('make_digits_folders'), tmp_path / 'digits'
    tool.main([str(out)])
    names = {split: [path.name for path in (out / split).rglob('*.png')] for split in ('train', 'val')}
    assert {split: len(found) for split, found in names.items()} == dict(train=1437, val=360)
    assert len(set(names['train'] + names['val'])) == 1797
    assert len(list((out / 'val').iterdir())) == 10
    assert '1437 pictures to train on, 360' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tool.main([str(out)])
    assert 'exists' in capsys.readouterr().err

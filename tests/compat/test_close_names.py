"""Close names, whatever their case and whatever was given."""
import pytest

from dynconv_mm.compat.close_names import did_you_mean
from dynconv_mm.models.backbones import ResNet

NAMES = ['ODConv2d', 'DyConv2d', 'Linear']


@pytest.mark.parametrize('name, expected', [
    ('odconv', "; did you mean 'ODConv2d' or 'DyConv2d'?"), ('linear', "; did you mean 'Linear'?"), ('pool', ''),
    (3, ''), (None, '')])
def test_did_you_mean(name, expected):
    assert did_you_mean(name, NAMES) == expected


@pytest.mark.parametrize('argument, kind, close', [('conv_cfg', 'ODConv', 'ODConv2d'),
                                                   ('norm_cfg', 'SyncBn', 'SyncBN')])
def test_types_of_configs(argument, kind, close):
    with pytest.raises(ValueError, match=f"{argument} must be .* but is .*'{kind}'.*did you mean .*'{close}'"):
        ResNet(18, **{argument: dict(type=kind)})

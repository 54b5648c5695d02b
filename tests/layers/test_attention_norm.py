"""The norm of an attention's hidden vector: which may be built, and how it treats short batches."""
from __future__ import annotations

import pytest
import torch
from torch import distributed, nn

from dynconv_mm.functional.attention import normalize_hidden
from dynconv_mm.layers.attention_norm import build_attention_norm

BATCH_NORMS = ('BN', 'BN1d', 'BN2d', 'SyncBN')


@pytest.mark.parametrize('size', [(), (5, ), (3, 5)], ids=str)
def test_a_norm_that_was_frozen(size):
    """By torchvision's or timm's ``FrozenBatchNorm2d``, which takes maps alone."""
    frozen_norm = pytest.importorskip('torchvision.ops').FrozenBatchNorm2d
    norm, hidden = nn.BatchNorm1d(4).eval(), torch.randn(3, 4, *size)
    for tensor in norm.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 1)
    frozen = frozen_norm(4, norm.eps)
    frozen.load_state_dict(norm.state_dict())
    actual = normalize_hidden(frozen, hidden)
    torch.testing.assert_close(actual, norm(hidden.flatten(2)).view(hidden.shape) if size else norm(hidden))


@pytest.mark.parametrize('batch', [0, 1, 2, 5])
@pytest.mark.parametrize('norm_type', BATCH_NORMS)
@pytest.mark.filterwarnings('ignore:An attention got a single sample')
def test_batch_norms_agree(norm_type, batch):
    norm, hidden = build_attention_norm(dict(type=norm_type, momentum=.5), 4), torch.randn(batch, 4).double()
    norm.double().running_mean.fill_(.5)
    trained = (hidden - .5) / (1 + 1e-5) ** .5
    mean = torch.full((4,), .5).double()
    torch.testing.assert_close(normalize_hidden(norm.eval(), hidden), trained)
    if batch > 1:
        trained = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
        mean = (mean + hidden.mean(0)) / 2
    torch.testing.assert_close(normalize_hidden(norm.train(), hidden), trained)
    torch.testing.assert_close(norm.running_mean, mean)
    assert norm.num_batches_tracked == (batch > 1)


@pytest.mark.parametrize(('batch', 'size', 'statistics'), [(0, 3, False), (1, 1, False), (2, 1, True), (1, 3, True)])
@pytest.mark.parametrize('norm_type', ['BN', 'SyncBN'])
@pytest.mark.filterwarnings('ignore:An attention got a single sample')
def test_maps_have_statistics_from_two_values_on(norm_type, batch, size, statistics):
    norm = build_attention_norm(dict(type=norm_type), 4, maps=True).double()
    maps = torch.randn(batch, 4, size, size).double()
    normalised = normalize_hidden(norm.train(), maps)
    mean, var = (maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)) if statistics else (torch.zeros(4), 1)
    torch.testing.assert_close(normalised, (maps - mean.view(1, 4, 1, 1)) / torch.as_tensor(var + 1e-5).sqrt().view(
        1, -1, 1, 1))
    assert norm.num_batches_tracked == statistics


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('batch', [0, 1, 3])
@pytest.mark.parametrize('norm_cfg', [None, dict(type='LN'), dict(type='GN', num_groups=2)], ids=str)
def test_other_norms_treat_each_sample_by_itself(norm_cfg, batch):
    norm, hidden = build_attention_norm(norm_cfg, 4).train(), torch.randn(batch, 4)
    alone = [normalize_hidden(norm, sample[None]) for sample in hidden]
    torch.testing.assert_close(normalize_hidden(norm, hidden), torch.cat([torch.empty(0, 4), *alone]))


@pytest.mark.parametrize(('world_size', 'synchronised'), [(1, False), (2, True)])
@pytest.mark.filterwarnings('ignore:An attention got a single sample')
def test_single_samples_of_several_processes_are_a_batch(monkeypatch, world_size, synchronised):
    norm, calls = nn.SyncBatchNorm(4), []
    # a single sample of this process alone is normalised as in eval mode
    monkeypatch.setattr(norm, 'forward', lambda hidden: (calls.append(1) if norm.training else None, hidden)[1])
    monkeypatch.setattr(distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(distributed, 'get_world_size', lambda group=None: world_size)
    assert normalize_hidden(norm, torch.ones(1, 4)).shape == (1, 4)
    assert bool(calls) == synchronised


def test_options_reach_the_norm():
    norm = build_attention_norm(dict(type='BN', eps=.1, momentum=.2, requires_grad=False), 4)
    assert (norm.eps, norm.momentum, norm.weight.requires_grad) == (.1, .2, False)


@pytest.mark.parametrize('norm_cfg', [
    'BN',
    {},
    dict(type='IN'),
    dict(type=None),
    dict(type=['BN']),
    dict(type='BN', channels=4),
    dict(type='BN', track_running_stats=False),
    dict(type='GN'),
    dict(type='GN', num_groups=3),
    dict(type='GN', num_groups=4),
], ids=str)
def test_bad_norms_are_refused(norm_cfg):
    with pytest.raises(ValueError, match='norm_cfg'):
        build_attention_norm(norm_cfg, 4)

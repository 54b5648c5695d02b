"""timm's networks keep their function, and train and freeze with its own tools."""
from __future__ import annotations

import pytest
import torch
from conv_layers import randomize
from torch import nn

from dynconv_mm import ODConv2d, dynamicize

timm = pytest.importorskip('timm', reason='needs timm, tested with 1.0.31: pip install timm')
OD = dict(type='ODConv2d', kernel_num=2)


def test_example(load_example):
    average = load_example('timm_classifier').main(['--steps', '2', '--kernels', '2'])
    layers = [module for module in average.module.modules() if isinstance(module, ODConv2d)]
    assert len(layers) == 19 and all(torch.isfinite(parameter).all() for parameter in average.module.parameters())


@pytest.mark.parametrize('name', ['resnet18', 'mobilenetv3_small_050', 'regnetx_002'])
@torch.no_grad()
def test_function_is_kept(name):
    model, x = randomize(timm.create_model(name)).eval(), torch.randn(2, 3, 64, 64)
    expected = model(x)
    assert dynamicize(model, op=OD).replaced
    assert (model(x) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize('name, how', [
    ('repvgg_a0', 'RepVggBlock.reparameterize'), ('mobileone_s0', 'MobileOneBlock.reparameterize'),
    ('repvit_m0_9', 'fuse'), ('fastvit_t8', 'reparameterize')])
def test_blocks_that_are_merged_are_found(name, how):
    """What is dynamic then stays right when timm merges the others."""
    from timm.utils import reparameterize_model
    model, x = randomize(timm.create_model(name)).eval(), torch.randn(1, 3, 64, 64)
    try:
        report = dynamicize(model, op=OD)
    except ValueError as error:  # all convolutions are merged
        assert how in str(error)
        return
    assert any(how in reason for reason in report.kept.values())
    with torch.no_grad():
        expected = model(x)
        assert (reparameterize_model(model)(x) - expected).abs().max() <= 1e-3 * expected.abs().max()


@torch.no_grad()
def test_norms_that_timm_freezes():
    """Those of attentions too, which it takes for norms of maps where they are synchronised."""
    from timm.layers import freeze_batch_norm_2d
    model, x = timm.create_model('resnet18'), torch.randn(3, 3, 64, 64).double()
    dynamicize(model, op=OD)
    randomize(model).double().eval()
    expected = model(x)
    frozen = freeze_batch_norm_2d(nn.SyncBatchNorm.convert_sync_batchnorm(model)).train()
    assert (frozen(x) - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in frozen.modules())

"""``with_cp`` changes nothing but the memory: not the maps, the gradients or the running statistics of norms."""
from __future__ import annotations

import pytest
import torch
from one_graph import needs_one_graph
from thin_networks import BACKBONES, settle


@pytest.mark.one_at_a_time('name', 'norm_eval')
@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('norm_eval', [False, True], ids=['training', 'norm_eval'])
def test_training_is_the_same(count, name, norm_eval):
    """Two steps, in which all is to the bit as without it."""
    torch.manual_seed(0)
    plain, thrifty = (settle(BACKBONES[name](with_cp=cp, norm_eval=norm_eval, freeze_attention=True)).train()
                      for cp in (False, True))
    thrifty.load_state_dict(plain.state_dict())
    initial = {key: value.clone() for key, value in plain.named_buffers()}
    models = plain, thrifty
    # with norms that do not normalise, a few steps can lead anywhere
    optimizers = [torch.optim.SGD(model.parameters(), lr=0. if norm_eval else 1e-3) for model in models]
    for _ in range(2):
        image = torch.randn(3, 3, 33, 40)
        count('steps with gradient checkpointing, compared with those without')
        maps = []
        for model, optimizer in zip(models, optimizers):
            optimizer.zero_grad()
            maps.append(model(image)[-1])
            maps[-1].square().mean().backward()
            optimizer.step()
        assert maps[0].isfinite().all() and torch.equal(*maps)
        for (key, value), other in zip(plain.state_dict().items(), thrifty.state_dict().values()):
            assert torch.equal(value, other), key
        for parameter, other in zip(*(model.parameters() for model in models)):
            assert torch.equal(parameter.grad, other.grad)
    moved = [key for key, value in plain.named_buffers() if not torch.equal(value, initial[key])]
    assert bool(moved) != norm_eval, 'the norms do not count, so that nothing is compared'


def test_a_graph_that_is_kept(count):
    """The backward pass can run twice, and counts the batch no more often than without."""
    torch.manual_seed(0)
    model = BACKBONES['ODConvResNet'](with_cp=True).train()
    loss = model(torch.randn(2, 3, 32, 32))[-1].square().mean()
    before = {key: value.clone() for key, value in model.named_buffers()}
    count('backward passes twice through checkpointed blocks')
    first = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(first, second)
    for key, value in model.named_buffers():
        assert torch.equal(value, before[key]), key


@needs_one_graph
def test_compiled(count):
    """Compiled code counts a batch once too."""
    torch.manual_seed(0)
    plain, thrifty = (BACKBONES['ODConvResNet'](num_stages=1, out_indices=(0, ), with_cp=cp).double().train()
                      for cp in (False, True))
    thrifty.load_state_dict(plain.state_dict())
    image = torch.randn(3, 3, 33, 40).double()
    count('compiled steps with gradient checkpointing')
    maps = [plain(image)[-1], torch.compile(thrifty, backend='aot_eager')(image)[-1]]
    for y in maps:
        y.square().mean().backward()
    torch.testing.assert_close(*maps)
    torch.testing.assert_close(thrifty.state_dict(), plain.state_dict())

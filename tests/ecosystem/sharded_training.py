"""Train sharded over two processes on the CPU and compare with one: started by torchrun, a line of JSON for each layer.

Takes a folder for checkpoints, and names of layers.
"""
from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'support'))

from conv_layers import CHANNELS, LAYERS, make_features, make_layer

from dynconv_mm.layers.conv_norm_act import ConvNormAct

with contextlib.suppress(ImportError):  # torch before 2.6
    from torch.distributed.fsdp import fully_shard

PER_PROCESS = 2


class Network(nn.Module):
    """A layer by itself, and one with a norm behind it; norms in eval mode, so that a batch can be divided."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = make_layer(name)
        self.second = ConvNormAct(CHANNELS, CHANNELS, 1, norm_cfg=dict(type='BN'))
        self.second.conv = make_layer(name, bias=False)
        self.last = nn.Conv2d(CHANNELS, 3, 1)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x)))


def fsdp1(original: bool) -> Callable[[nn.Module], nn.Module]:
    """FullyShardedDataParallel of each layer and of the whole, with the original parameters or flat ones."""

    def shard(model: nn.Module) -> nn.Module:
        common = dict(device_id=torch.device('cpu'), use_orig_params=original,
                      sharding_strategy=ShardingStrategy.FULL_SHARD)
        model.first = FullyShardedDataParallel(model.first, **common)
        model.second.conv = FullyShardedDataParallel(model.second.conv, **common)
        return FullyShardedDataParallel(model, **common)

    return shard


def fsdp2(model: nn.Module) -> nn.Module:
    """fully_shard of the same modules."""
    mesh = init_device_mesh('cpu', (distributed.get_world_size(), ))
    for module in (model.first, model.second.conv, model):
        fully_shard(module, mesh=mesh)
    return model


WAYS = {'FSDP1': fsdp1(True), 'FSDP1, flat': fsdp1(False), 'FSDP2': fsdp2}


CASES = [(way, name) for way in WAYS for name in LAYERS if (way != 'FSDP2' or 'fully_shard' in globals())
         and (way != 'FSDP1, flat' or name in ('ODConv2d 4x', 'DyConv2d'))]


def step(model: nn.Module, x: Tensor) -> None:
    """One step of plain gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest, relative to the largest value of the tensor; of a process that got no state it is 0."""
    if distributed.get_rank():
        return 0.
    assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())
    return max(float((ours[name].double() - value.double()).abs().max() / value.abs().max().clamp(min=1e-3))
               for name, value in theirs.items())


def compare(way: str, name: str, folder: Path) -> dict:
    """A step, a checkpoint, and a step of another model that loaded it: how far each is from a single process."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    images = make_features(PER_PROCESS * world, dtype=torch.float64)
    own = images[rank * PER_PROCESS:(rank + 1) * PER_PROCESS]
    single = Network(name)
    sharded = WAYS[way](Network(name))
    step(single, images)
    step(sharded, own)
    result = dict(moved=difference(Network(name).state_dict(), single.state_dict()),
                  step=difference(whole_state(sharded), single.state_dict()))

    checkpoint.save(get_model_state_dict(sharded), checkpoint_id=str(folder))
    other = WAYS[way](Network(name))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    state = get_model_state_dict(other)
    checkpoint.load(state, checkpoint_id=str(folder))
    set_model_state_dict(other, state)
    result['loaded'] = difference(whole_state(other), single.state_dict())
    step(single, images)
    step(other, own)
    return dict(result, resumed=difference(whole_state(other), single.state_dict()))


def main(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo')
    for number, (way, name) in enumerate(case for case in CASES if case[1] in names):
        try:
            result = compare(way, name, folder / str(number))
        except (Exception, CheckpointException) as error:  # in both processes at the same place
            result = dict(error=f'{type(error).__name__}: {error}'[:500])
        if distributed.get_rank() == 0:
            print(json.dumps(dict(way=way, name=name, **result)), flush=True)
    distributed.destroy_process_group()


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main(Path(sys.argv[1]), *sys.argv[2:])

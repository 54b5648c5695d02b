"""Train in two processes on the CPU and compare with one: started by torchrun, a line of JSON for each comparison.

Takes the detector's data, the folder to work in, and what to train: methods, 'classifier', 'detector'.
"""
from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'support'))

from thin_networks import METHODS, settle  # noqa: E402

PER_PROCESS = 2


def normalize_synchronised(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """In place of ``SyncBatchNorm.forward``, for which torch has no kernel on a CPU: its equations."""
    if not norm.training:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
    count = x.numel() // x.shape[1] * distributed.get_world_size()
    mean = all_reduce(x.sum(dims)) / count
    centred = x - mean.view(shape)
    variance = all_reduce(centred.square().sum(dims)) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return centred * scale.view(shape) + norm.bias.view(shape)


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest, relative to the largest value of the tensor."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - value).abs().max() / value.abs().max().clamp(min=1e-3))
               for name, value in theirs.items())


def gradients(model: nn.Module, image: Tensor, steps: int = 2) -> dict[str, Tensor]:
    """Of the last of some passes: where a parameter is not used, DistributedDataParallel refuses the second."""
    for _ in range(steps):
        model.zero_grad()
        sum(y.square().mean() for y in model(image)).backward()
    return {name.removeprefix('module.'): parameter.grad for name, parameter in model.named_parameters()}


def averaged_gradients(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """As DistributedDataParallel averages them, which refuses synchronised norms on a CPU."""
    averaged = gradients(model, image)
    for gradient in averaged.values():
        distributed.all_reduce(gradient)
        gradient /= distributed.get_world_size()
    return averaged


def compare(what: str, method: str, distributed_model: nn.Module, single: nn.Module, per_process: int) -> None:
    """Print how far gradients and running statistics are from those of one process with all images."""
    images = torch.randn(per_process * distributed.get_world_size(), 3, 64, 48, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(1))
    rank = distributed.get_rank()
    own = images[rank * per_process:(rank + 1) * per_process]
    if any(isinstance(module, nn.SyncBatchNorm) for module in distributed_model.modules()):
        ours = averaged_gradients(distributed_model, own)
    else:
        ours = gradients(MMDistributedDataParallel(distributed_model, find_unused_parameters=False), own)
    theirs = gradients(single, images)
    say(dict(what=what, method=method, gradients=difference(ours, theirs),
             buffers=difference(*({name: value.double() for name, value in model.named_buffers()}
                                  for model in (distributed_model, single)))))


def say(line: dict) -> None:
    """From the first process, the worst of all."""
    lines = [None] * distributed.get_world_size()
    distributed.all_gather_object(lines, line)
    if distributed.get_rank() == 0:
        print(json.dumps({key: max(other[key] for other in lines) for key in line}), flush=True)


def train(what: str, cfg: Config, folder: Path) -> None:
    """By mmengine's runner; prints whether both processes end with the same finite weights, and saved them."""
    cfg.merge_from_dict(dict(
        launcher='pytorch', work_dir=str(folder), val_cfg=None, val_dataloader=None, val_evaluator=None, test_cfg=None,
        test_dataloader=None, test_evaluator=None, train_cfg=dict(max_epochs=1, val_interval=10),
        train_dataloader=dict(batch_size=2, num_workers=0, persistent_workers=False),
        # mmengine's default names the process's GPU
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=False)))
    runner = Runner.from_cfg(cfg)
    runner.train()
    weights = torch.cat([parameter.detach().flatten() for parameter in runner.model.parameters()])
    other = weights.clone()
    distributed.broadcast(other, 0)
    say(dict(what=what, differs=not torch.equal(weights, other), lost=not weights.isfinite().all().item(),
             unsaved=not (folder / 'epoch_1.pth').is_file(), iterations=runner.iter))


def classifier(folder: Path) -> Config:
    """A config of ours, thin, on images of noise."""
    import cv2
    for index in range(8):
        path = folder / 'images' / f'class{index % 2}' / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 255, (40, 32, 3), np.uint8))
    cfg = Config.fromfile(ROOT / 'configs/odconv/odconv4x-resnet18_8xb32_in1k.py')
    cfg.model.backbone.update(stem_channels=8, base_channels=8)
    cfg.model.head.update(in_channels=64, num_classes=2)
    cfg.model.head.topk = (1, )
    cfg.train_dataloader.dataset = dict(
        type='CustomDataset', data_prefix=str(folder / 'images'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    return cfg


def detector(data: Path) -> Config:
    """The demo's."""
    cfg = Config.fromfile(ROOT / 'configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py')
    cfg.merge_from_dict(dict(train_dataloader=dict(dataset=dict(data_root=f'{data}/'))))
    return cfg


def main(data: Path, folder: Path, *parts: str) -> None:
    methods = {method: network for method, network in METHODS.items() if method in parts}
    torch.set_num_threads(1)
    # mmengine's own, for launcher='pytorch', asks for a GPU
    distributed.init_process_group('gloo')
    for method, network in methods.items():
        torch.manual_seed(0)
        single = settle(network().double(), size=(48, 48))
        compare('norms in eval mode', method, copy.deepcopy(single), single, PER_PROCESS)
    forward, nn.SyncBatchNorm.forward = nn.SyncBatchNorm.forward, normalize_synchronised
    for method, network in methods.items():
        torch.manual_seed(0)
        single = network().double().train()
        configured = network(norm_cfg=dict(type='SyncBN')).double().train()
        configured.load_state_dict(single.state_dict())
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(single))
        compare('SyncBN by norm_cfg', method, configured, copy.deepcopy(single), PER_PROCESS)
        compare('SyncBN by conversion, one image a process', method, converted, single, 1)
    nn.SyncBatchNorm.forward = forward
    if 'classifier' in parts:
        train('classifier', classifier(folder), folder / 'classifier')
    if 'detector' in parts:
        train('detector', detector(data), folder / 'detector')
    distributed.destroy_process_group()


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])

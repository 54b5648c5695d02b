#!/usr/bin/env python3
"""Train networks of this package beside the released ones, re-stated in plain torch, and compare the losses.

Both start from the same weights in float64 and see the same batches. Ours are trained by mmengine's Runner with its
optimizer and this package's annealing of temperatures, the others by scripts/reference_networks.py. Beside the
differences stand those of two references whose weights differ in the last bit. Losses are kept in
docs/training_parity.json, network by network; the tables of docs/training_parity.md and its figure are made of them.
"""
from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from pages import ROOT, page_with
from quiet_training import train

from dynconv_mm.analysis.markdown import markdown_table
from dynconv_mm.atomic_write import atomic_write, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

RESULTS = ROOT / 'docs' / 'training_parity.json'
PAGE = ROOT / 'docs' / 'training_parity.md'
FIGURE = ROOT / 'docs' / 'images' / 'training_parity.png'

STEPS, ANNEALED = 12, 10  # the temperature falls over the first of these
ANNEALING, WAREHOUSE_ANNEALING = (30., 1.), (1., 0.)  # from and to, KernelWarehouse's last
SGD = dict(lr=0.01, momentum=0.9, weight_decay=1e-4)
CLASSES = 10
BATCH, IMAGE_SIZE = 4, 64
DETECTOR_BATCH, DETECTOR_IMAGE_SIZE = 2, 128
SHOWN_STEPS = (1, 2, 3, 6, STEPS)
IN_FULL = 'odconv4x-resnet18_8xb32_in1k'
FDCONV = 'fdconv-resnet26'
THIN = dict(stem_channels=32, base_channels=16, zero_init_residual=False)  # else blocks put out nothing at first
BOTTLENECKS = dict(THIN, depth=26)
MOBILE = dict(widen_factor=0.25)
CLASSIFIERS = {  # what is changed in their backbones, so that all runs take minutes; and channels of what they put out
    'resnet18_8xb32_in1k': (THIN, 128),
    IN_FULL: (THIN, 128),
    'odconv1x-mobilenet-v2-w050_8xb32_in1k': (MOBILE, 1280),
    'dyconv4x-resnet18_8xb32_in1k': (THIN, 128),
    'dyconv4x-mobilenet-v2-w050_8xb32_in1k': (MOBILE, 1280),
    'condconv8x-resnet18_8xb32_in1k': (THIN, 128),
    'condconv8x-mobilenet-v2-w050_8xb32_in1k': (MOBILE, 1280),
    'dwcondconv8x-resnet50_8xb128-timm_in1k': (BOTTLENECKS, 512),
    'dcd-resnet18_8xb32_in1k': (THIN, 128),
    'dcd-resnet50_8xb32_in1k': (BOTTLENECKS, 512),
    'dcd-mobilenet-v2-w050_8xb32_in1k': (MOBILE, 1280),
    'weightnet-resnet18_8xb32_in1k': (THIN, 128),
    'dwweightnet-resnet50_8xb128-timm_in1k': (BOTTLENECKS, 512),
    'cgc-resnet18_8xb32_in1k': (THIN, 128),
    'we-resnet18_8xb32_in1k': (THIN, 128),
    'kw1x-resnet18_32xb128-300e_in1k': (THIN, 128),
    'rednet26_8xb32_in1k': (THIN, 512),
    'dcdc-resnet26_8xb32_in1k': (THIN, 512),
    'ddf-resnet50_8xb128-timm_in1k': (BOTTLENECKS, 512),
    'lrnet26_8xb32-130e_in1k': (THIN, 512),
    'sa-resnet26_8xb32-130e_in1k': (THIN, 512),
    'san10_8xb32_in1k': (dict(base_channels=32), 1024),
    FDCONV: (dict(THIN, type='FDConvResNet'), 512),
}
BASED_ON = {FDCONV: 'resnet26_8xb32-130e_in1k'}  # the config of networks that have none of their own
DETECTORS = {
    'retinanet_dcdc-r26_dcdc-fpn_1x_coco': dict(
        backbone=THIN, neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
        bbox_head=dict(in_channels=32, feat_channels=32, num_classes=CLASSES)),
}


def classifier(name: str) -> nn.Module:
    """One of the page, in float64, with fresh weights and a plain cross-entropy."""
    backbone, channels = CLASSIFIERS[name]
    loss = dict(type='CrossEntropyLoss', loss_weight=1., _delete_=True)
    return prepared(BASED_ON.get(name, name), backbone=backbone,
                    head=dict(in_channels=channels, num_classes=CLASSES, loss=loss))


def detector(name: str) -> nn.Module:
    """One of the page, in float64, with fresh weights; the norms of its backbone, which stay in eval mode, have the
    statistics of random images."""
    from dynconv_mm.conversion.settle_norms import random_images, settle_norms
    changes = DETECTORS[name]
    model = prepared(name, **{**changes, 'backbone': dict(changes['backbone'], init_cfg=None)})
    settle_norms(model.backbone, random_images(8, 3, DETECTOR_IMAGE_SIZE, DETECTOR_IMAGE_SIZE).double())
    return model


def prepared(name: str, **changes: object) -> nn.Module:
    """A network whose batches are taken as they are."""
    import torch
    from mmengine.logging import MMLogger
    from mmengine.model import BaseDataPreprocessor

    from dynconv_mm import get_model

    MMLogger.get_instance('training_parity').setLevel('ERROR')  # else every parameter is reported
    model = get_model(name, **changes)
    torch.manual_seed(0)
    model.init_weights()
    model.data_preprocessor = BaseDataPreprocessor()
    return model.double()


def classifier_batches(steps: int) -> list[dict]:
    """Random images and labels."""
    import torch
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(1)
    return [dict(inputs=torch.randn(BATCH, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.float64, generator=generator),
                 data_samples=[DataSample().set_gt_label(torch.randint(CLASSES, (1, ), generator=generator))
                               for _ in range(BATCH)]) for _ in range(steps)]


def detector_batches(steps: int) -> list[dict]:
    """Random images, each with three boxes."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator, size = torch.Generator().manual_seed(1), DETECTOR_IMAGE_SIZE

    def sample() -> DetDataSample:
        corners = torch.rand(3, 2, dtype=torch.float64, generator=generator) * size / 2
        sides = (0.2 + 0.3 * torch.rand(3, 2, dtype=torch.float64, generator=generator)) * size
        found = DetDataSample(metainfo=dict(img_shape=(size, size), pad_shape=(size, size),
                                            batch_input_shape=(size, size), scale_factor=(1., 1.)))
        found.gt_instances = InstanceData(bboxes=torch.cat([corners, corners + sides], 1),
                                          labels=torch.randint(CLASSES, (3, ), generator=generator))
        return found

    return [dict(inputs=torch.randn(DETECTOR_BATCH, 3, size, size, dtype=torch.float64, generator=generator),
                 data_samples=[sample() for _ in range(DETECTOR_BATCH)]) for _ in range(steps)]


def train_ours(model: nn.Module, batches: list[dict], annealing: dict | None) -> list[float]:
    """The loss of each step of mmengine's Runner; the model is trained.

    Args:
        annealing (dict, optional): ``start``, ``end`` and ``iters`` of TemperatureAnnealingHook; None: there is none.
    """
    import torch
    from mmengine.hooks import Hook
    from torch.utils.data import DataLoader

    losses = []

    class Recorder(Hook):

        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            torch.manual_seed(runner.iter)  # of dropout

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            losses.append(outputs['loss'].item())

    hooks = [Recorder(), *([dict(type='TemperatureAnnealingHook', **annealing)] if annealing else [])]
    train(model, DataLoader(batches, batch_size=None), dict(optimizer=dict(type='SGD', **SGD)), hooks)
    return losses


def train_reference(loss: Callable[[dict[str, Tensor], dict, float], Tensor], tensors: dict[str, Tensor],
                    parameters: dict[str, Tensor], batches: list[dict], annealing: dict | None) -> list[float]:
    """The loss of each step of the reference; the parameters are trained.

    Args:
        loss (Callable): of tensors, a batch and a temperature.
        tensors (dict[str, Tensor]): all weights and statistics.
        parameters (dict[str, Tensor]): those of them that learn.
        annealing (dict, optional): as of :func:`train_ours`.
    """
    import reference_networks
    import torch

    optimizer, losses = reference_networks.SGD(parameters, **SGD), []
    for step, batch in enumerate(batches):
        torch.manual_seed(step)
        temperature = 1. if annealing is None else reference_networks.temperature_at(
            step, annealing['iters'], annealing['start'], annealing['end'])
        value = loss(tensors, batch, temperature)
        optimizer.step(value)
        losses.append(value.item())
    return losses


def copied(model: nn.Module, frozen: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Copies of all weights and statistics, and of them the parameters that learn."""
    learning = {name for name, _ in model.named_parameters() if not name.startswith(frozen or '-')}
    tensors = {name: value.detach().clone().requires_grad_(name in learning)
               for name, value in model.state_dict().items() if value.is_floating_point()}
    return tensors, {name: tensors[name] for name in sorted(learning)}


def change_last_bit(parameters: dict[str, Tensor]) -> None:
    """Let every weight be the next larger number, but for those of 0: there, ReLU's gradient would change at once."""
    import torch
    with torch.no_grad():
        for value in parameters.values():
            value.copy_(torch.where(value == 0, value, torch.nextafter(value, torch.full_like(value, math.inf))))


def annealing_of(model: nn.Module, iters: int) -> dict | None:
    """From where to where a network's temperature falls; None: there is none."""
    from dynconv_mm.layers.kernel_warehouse import WarehouseLayer
    from dynconv_mm.layers.temperature import TemperatureMixin
    layers = [layer for layer in model.modules() if isinstance(layer, TemperatureMixin)]
    if not layers:
        return None
    start, end = WAREHOUSE_ANNEALING if isinstance(layers[0], WarehouseLayer) else ANNEALING
    return dict(start=start, end=end, iters=iters)


def compare(model: nn.Module, batches: list[dict], loss: Callable, frozen: tuple[str, ...],
            annealing: dict | None) -> dict[str, list[float]]:
    """The losses of 'ours', of the 'reference' and of the reference with the 'last_bit' changed; the model is
    trained."""
    losses = {}
    for run in ('reference', 'last_bit'):
        tensors, parameters = copied(model, frozen)
        if run == 'last_bit':
            change_last_bit(parameters)
        losses[run] = train_reference(loss, tensors, parameters, batches, annealing)
    return {'ours': train_ours(model, batches, annealing), **losses}


def compare_classifier(model: nn.Module, batches: list[dict], annealed: int = ANNEALED) -> dict[str, list[float]]:
    """As of :func:`compare`."""
    import reference_networks
    import torch

    dropout = model.head.dropout.p if hasattr(model.head, 'dropout') else 0.

    def loss(tensors: dict[str, Tensor], batch: dict, temperature: float) -> Tensor:
        weights = reference_networks.Weights(tensors, True, temperature, dropout)
        labels = torch.cat([sample.gt_label for sample in batch['data_samples']])
        return reference_networks.cross_entropy(reference_networks.logits(weights, batch['inputs']), labels)

    return compare(model, batches, loss, (), annealing_of(model, annealed))


def compare_retinanet(model: nn.Module, batches: list[dict]) -> dict[str, list[float]]:
    """As of :func:`compare`; backbone and neck are the reference's, the head and its targets mmdet's in both. As the
    config has it, the stem and the first stage do not learn, and no batch norm of the backbone uses its batch."""
    import copy

    import reference_networks
    from torch.func import functional_call

    class HeadLoss(type(model.bbox_head)):

        def forward(self, features, samples=None):
            if samples is None:
                return super().forward(features)
            return self.loss(features, samples)

    head = copy.deepcopy(model.bbox_head)
    head.__class__ = HeadLoss

    def loss(tensors: dict[str, Tensor], batch: dict, temperature: float) -> Tensor:
        maps = reference_networks.backbone(reference_networks.Weights(tensors, False).at('backbone'), batch['inputs'])
        levels = reference_networks.retinanet_pyramid(reference_networks.Weights(tensors).at('neck'), maps)
        own = {name.removeprefix('bbox_head.'): value for name, value in tensors.items()
               if name.startswith('bbox_head.')}
        parts = functional_call(head, own, (tuple(levels), batch['data_samples']))
        return sum(part for values in parts.values() for part in values)

    return compare(model, batches, loss, ('backbone.stem.', 'backbone.layer1.'), None)


def run(name: str) -> dict[str, list[float]]:
    """The losses of a network of the page."""
    if name in DETECTORS:
        return compare_retinanet(detector(name), detector_batches(STEPS))
    return compare_classifier(classifier(name), classifier_batches(STEPS))


def differences(losses: dict[str, list[float]], run: str) -> list[float]:
    """Of a run's losses from the reference's, relative to these."""
    return [abs(value - wanted) / abs(wanted) for value, wanted in zip(losses[run], losses['reference'])]


def render_all(results: dict[str, dict]) -> str:
    """The table of all networks."""
    rows = []
    for name in (*CLASSIFIERS, *DETECTORS):
        if name in results:
            ours, band = (differences(results[name], kind) for kind in ('ours', 'last_bit'))
            rows.append([f'`{name}`', *(f'{ours[step - 1]:.0e} / {band[step - 1]:.0e}' for step in SHOWN_STEPS)])
    return markdown_table(['network', *(f'step {step}' for step in SHOWN_STEPS)], rows)


def render_one(losses: dict[str, list[float]]) -> str:
    """The table of one network, step by step."""
    from reference_networks import temperature_at
    ours, band = (differences(losses, kind) for kind in ('ours', 'last_bit'))
    rows = [[str(step + 1), f'{temperature_at(step, ANNEALED):.1f}', f'{losses["ours"][step]:.15f}',
             f'{losses["reference"][step]:.15f}', f'{ours[step]:.1e}', f'{band[step]:.1e}']
            for step in range(len(ours))]
    return markdown_table(['step', 'temperature', 'our loss', 'loss of the reference', 'difference',
                           'of the last bit'], rows)


def draw(results: dict[str, dict]) -> Figure:
    """The differences of each network by step, and those of two references beside them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    names = [name for name in (*CLASSIFIERS, *DETECTORS) if name in results]
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(12, 2.1 * rows + 0.6), layout='constrained')
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    least = 2.**-54  # a difference of 0, which has no logarithm
    for axis, name in zip(axes, names):
        for kind, label, style in (('last_bit', 'two references that differ in the last bit', '--'),
                                   ('ours', 'this package and the reference', '-')):
            values = [max(value, least) for value in differences(results[name], kind)]
            axis.plot(range(1, len(values) + 1), values, style, label=label, marker='.', linewidth=1.2)
        axis.set_title(re.split(r'_\d+x', name)[0], fontsize=9)
        axis.set_yscale('log')
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    for axis in axes[max(len(names) - columns, 0):len(names)]:  # the last of each column
        axis.tick_params(labelbottom=True)
    for axis in axes[len(names):]:
        axis.set_visible(False)
    figure.supxlabel('step')
    figure.supylabel('relative difference of the losses')
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside upper center', ncols=2)
    return figure


def parts(results: dict[str, dict]) -> dict[str, str]:
    """What the page shows of the results, by the names of its markers."""
    return {'one': render_one(results[IN_FULL]), 'all': render_all(results)}


def main(argv: list[str] | None = None) -> None:
    from dynconv_mm.analysis.figures import to_png
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--again', action='store_true', help='run what has a result too')
    parser.add_argument('--only', nargs='+', metavar='NETWORK', choices=(*CLASSIFIERS, *DETECTORS),
                        default=[*CLASSIFIERS, *DETECTORS], help='networks of the page to run')
    args = parser.parse_args(argv)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in args.only:
        if args.again or name not in results:
            results[name] = run(name)
            ours, band = (differences(results[name], kind) for kind in ('ours', 'last_bit'))
            print(f'{name}: first step {ours[0]:.0e} ({band[0]:.0e}), last {ours[-1]:.0e} ({band[-1]:.0e})', flush=True)
            write_text(RESULTS, json.dumps(results, indent=1) + '\n')
    if IN_FULL in results:
        write_text(PAGE, page_with(PAGE.read_text(encoding='utf-8'), 'training_parity', parts(results)))
        with atomic_write(FIGURE) as partial:
            partial.write_bytes(to_png(draw(results)))


if __name__ == '__main__':
    main()

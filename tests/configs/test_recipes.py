"""Every network is trained as the papers say, and, where they are silent, as their released code does."""
from __future__ import annotations

import math
import re
from typing import NamedTuple

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from shipped_configs import CONFIGS, DETECTORS, IMAGENET, VARIANTS, load

mmpretrain = pytest.importorskip('mmpretrain')


class Recipe(NamedTuple):
    """What a network is trained by."""

    optimizer: dict
    max_epochs: int
    schedule: str  # a key of LEARNING_RATES
    batch: int = 256
    paramwise: dict | None = None
    smoothing: float = 0.
    mixup: float = 0.
    dropout: float = 0.
    annealing: bool = False
    average: float = 0.  # of the weights, what it forgets of itself a step
    zero_init: bool | None = False  # the last norm of each block starts at 0; None: a network without such blocks
    transforms: tuple[str, ...] = ('RandomResizedCrop', 'RandomFlip')


def sgd(lr: float, weight_decay: float, **others: object) -> dict:
    return dict(type='SGD', lr=lr, momentum=0.9, weight_decay=weight_decay, **others)


# ODConv A.2: "trained with SGD for 100 epochs. We set the batch size as 256, the weight decay as 0.0001 and the
# momentum as 0.9. The learning rate starts at 0.1, and is divided by 10 every 30 epochs"; without "mixup and label
# smoothing" (4.1)
RESNET = Recipe(sgd(0.1, 1e-4), 100, 'steps')
# "for 150 epochs … the batch size as 256, the weight decay as 0.00004 and the momentum as 0.9. The learning rate starts
# at 0.05, and is scheduled to arrive at zero within a single cosine cycle"
MOBILENET = Recipe(sgd(0.05, 4e-5), 150, 'cosine', zero_init=None)
# "we also use dropout rate of 0.1 for ResNet18 … 0.2 for ResNet50 and ResNet101 … 0.2 for MobileNetV2 (1.0×) and
# dropout rate of (0.1, 0) for MobileNetV2 (0.75×, 0.5×)", "for our ODConv", "following DyConv"
DROPOUT = dict(resnet18=0.1, resnet50=0.2, resnet101=0.2, w100=0.2, w075=0.1, w050=0.)
# Table 15: "label smoothing, mixup and (label smoothing+mixup) separately for 100 epochs", "(label smoothing+mixup) for
# 120 epochs"; Table 13: "300 epochs", "all the other training settings remain the same"; Table 10: without annealing
CHANGES = {
    'lbs': dict(smoothing=0.1), 'mixup': dict(mixup=0.2), 'lbs-mixup': dict(smoothing=0.1, mixup=0.2),
    'lbs-mixup-120e': dict(smoothing=0.1, mixup=0.2, max_epochs=120), '150e': {}, '300e': dict(max_epochs=300),
    'no-annealing': dict(annealing=False), 'no-attention': dict(annealing=False),
    'crops': dict(transforms=('Resize', 'RandomCrop', 'RandomFlip')),
}
# DCD 5: "The initial learning rate is 0.05 and decays to 0 in 300 epochs, according to a cosine function. Weight decay
# of 2e-5 and a dropout rate of 0.1 are also used. For MobileNetV2 ×1.0, Mixup and label smoothing are further added"
DCD_MOBILENET = Recipe(sgd(0.05, 2e-5), 300, 'cosine', dropout=0.1, zero_init=None)
# DCDC IV-A1: "mini-batch and initial learning rate with cosine annealing policy are set to 256 and 0.1. All models are
# trained for 130 epochs via stochastic gradient descent optimizer with the momentum of 0.9 and the weight decay of
# 0.0001. The learning rate warm-up strategy with linear growth style at first 5 epochs"; "consistent with" involution's
# released configs: LabelSmoothLoss 0.1, nesterov=True, warmup_ratio=0.25, zero_init_residual=True
INVOLUTION = Recipe(sgd(0.1, 1e-4, nesterov=True), 130, 'warm-up and cosine', smoothing=0.1, zero_init=True)
# SAN's released imagenet_san10_pairwise.yaml: batch_size: 256, base_lr: 0.1, epochs: 100, label_smoothing: 0.1,
# mixup_alpha: (none), scheduler: cosine, momentum: 0.9, weight_decay: 0.0001; its blocks end in a convolution
PAIRWISE = Recipe(sgd(0.1, 1e-4), 100, 'cosine', smoothing=0.1, zero_init=None)
# SASA A.2: 130 epochs with Nesterov's momentum, a learning rate of 1.6 for a batch of 4096, warmed up linearly for 10
# epochs, then a cosine, an average of the weights with 0.9999
STAND_ALONE = INVOLUTION._replace(schedule='warm-up, then cosine', smoothing=0., average=1e-4)
# DDF's train.py and README: --lr 0.4 -b 128 on 8 GPUs --warmup-epochs 5 --epochs 120 --sched cosine, and by default
# --warmup-lr 1e-4 --min-lr 1e-5 --cooldown-epochs 10 --aa rand-m7-mstd0.5-inc1 --reprob 0.4 --smoothing 0.1
TIMM = Recipe(sgd(0.4, 1e-4, nesterov=True), 130, 'timm', 1024, dict(norm_decay_mult=0., bias_decay_mult=0.), 0.1,
              zero_init=True, transforms=('RandomChoice', 'RandomFlip', 'RandAugment', 'RandomErasing'))


def expected(name: str) -> Recipe:
    """The recipe of a config, by its name."""
    method, stem = name.removesuffix('_in1k.py').split('/')
    network, _, variant = re.fullmatch(r'(.+?)_8xb(32|128)-?(.*)', stem).groups()
    if variant == 'timm':
        return TIMM
    if method == 'san':
        return PAIRWISE
    if method == 'sasa':
        return STAND_ALONE
    if method in ('rednet', 'dcdc') or variant == '130e':
        return INVOLUTION
    mobilenet = 'mobilenet' in network
    if method == 'dcd' and mobilenet and not variant:
        return DCD_MOBILENET._replace(smoothing=0.1, mixup=0.2) if 'w100' in network else DCD_MOBILENET
    recipe = MOBILENET if mobilenet else RESNET
    if method in ('odconv', 'dyconv'):
        recipe = recipe._replace(dropout=DROPOUT[re.search('|'.join(DROPOUT), network)[0]], annealing=True)
    if method == 'dcd' and (mobilenet or 'resnet50' in network):
        recipe = recipe._replace(dropout=0.1)  # DCD 5: "Dropout 0.1 is used only for ResNet-50"
    return recipe._replace(**CHANGES[variant]) if variant else recipe


def plain(cfg: dict) -> dict:
    """Without the mark of the package that it was inherited from."""
    return {key: value for key, value in cfg.items() if key != '_scope_'}


def found(name: str) -> Recipe:
    """What a config says, but for the schedule, which is compared with the learning rates."""
    config = load(name)
    backbone, head = config.model.backbone, config.model.head
    augments = config.model.get('train_cfg', {}).get('augments', dict(type='Mixup', alpha=0.))
    assert augments['type'] == 'Mixup'
    smoothing = 0.
    if head.loss.type == 'LabelSmoothLoss':
        assert head.loss.get('mode', 'original') == 'original'
        smoothing = head.loss.label_smooth_val
    else:
        assert plain(head.loss) == dict(type='CrossEntropyLoss', loss_weight=1.0)
    hooks = {hook.type: hook for hook in config.get('custom_hooks', [])}
    assert hooks.keys() <= {'TemperatureAnnealingHook', 'EMAHook'}
    annealing, average = hooks.get('TemperatureAnnealingHook'), hooks.get('EMAHook', dict(momentum=0.))
    if annealing:  # A.2: "the temperature reduces from 30 to 1 linearly in the first 10 epochs"
        assert {key: annealing[key] for key in ('start', 'end', 'epochs')} == dict(start=30., end=1., epochs=10)
    load_image, *transforms, pack = (transform.type for transform in config.train_dataloader.dataset.pipeline)
    assert (load_image, pack) == ('LoadImageFromFile', 'PackInputs')
    assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size
    return Recipe(
        plain(config.optim_wrapper.optimizer), config.train_cfg.max_epochs, expected(name).schedule,
        8 * config.train_dataloader.batch_size, config.optim_wrapper.get('paramwise_cfg'), smoothing, augments['alpha'],
        head.get('dropout', 0.), bool(annealing), average['momentum'],
        backbone.get('zero_init_residual', True) if 'depth' in backbone and backbone.type != 'SAN' else None,
        tuple(transforms))


@pytest.mark.parametrize('name', [name for name in IMAGENET if not name.startswith('kw/')])
def test_recipe(name):
    assert found(name) == expected(name)


@pytest.mark.parametrize('name', [name for name in IMAGENET if name.startswith('kw/')])
def test_recipe_of_kernel_warehouse(name):
    """Its release's: ResNets as ConvNeXts are trained, MobileNetV2 as ODConv's, without dropout."""
    config = load(name)
    optimizer, train = plain(config.optim_wrapper.optimizer), config.model.get('train_cfg', {})
    hook, = config.custom_hooks
    epochs = dict(hook, epochs=0) == dict(type='TemperatureAnnealingHook', start=1., end=0., epochs=0) and hook.epochs
    backbone = config.model.backbone
    temperatures = [backbone.get('op', backbone).temperature, config.model.head.get('temperature', 1.)]
    assert temperatures == [1., 1.]
    if 'mobilenet' in name:
        assert (optimizer, config.train_cfg.max_epochs, epochs) == (sgd(0.05, 4e-5), 150, 15)
        assert config.auto_scale_lr.base_batch_size == 256 and 'augments' not in train
        return
    assert optimizer == dict(type='AdamW', lr=4e-3, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999))
    assert (config.train_cfg.max_epochs, epochs, config.auto_scale_lr.base_batch_size) == (300, 20, 4096)
    assert [schedule.type for schedule in config.param_scheduler] == ['LinearLR', 'CosineAnnealingLR']
    assert config.param_scheduler[0].end == 20
    assert plain(config.model.head.loss) == dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
    augments = {augment.type: augment.alpha for augment in train.augments or ()}
    assert augments == ({} if '1d4x' in name else dict(Mixup=0.8, CutMix=1.0))
    transforms = {transform.type: transform for transform in config.train_dataloader.dataset.pipeline}
    assert transforms['RandAugment'].magnitude_level == 9 and transforms['RandomErasing'].erase_prob == 0.25


def cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


# of the base, before step `step` of the epoch `epoch`, by the epochs and the steps of each
LEARNING_RATES = {
    'steps': lambda epoch, step, epochs, steps: 10.**-min(epoch // 30, 3),
    'cosine': lambda epoch, step, epochs, steps: cosine((epoch + step / steps) / epochs),
    # mmcv 1: the epoch's rate, times what rises from the ratio to 1, step by step
    'warm-up and cosine': lambda epoch, step, epochs, steps: cosine(epoch / epochs) * (
        1 - 0.75 * max(0., 1 - (epoch + step / steps) / 5)),
    'warm-up, then cosine': lambda epoch, step, epochs, steps: (
        0.001 + 0.999 * (epoch + step / steps) / 10 if epoch < 10
        else cosine((epoch + step / steps - 10) / (epochs - 10))),
    'timm': lambda epoch, step, epochs, steps: (
        2.5e-4 + (1 - 2.5e-4) * epoch / 5 if epoch < 5
        else 2.5e-5 + (1 - 2.5e-5) * cosine(min(epoch, 120) / 120)),
}


@pytest.mark.parametrize('name', [
    'odconv/odconv4x-resnet18_8xb32-lbs-mixup-120e_in1k.py', 'odconv/odconv1x-mobilenet-v2-w050_8xb32_in1k.py',
    'dyconv/dyconv4x-mobilenet-v2-w050_8xb32-300e_in1k.py', 'dcdc/dcdc-resnet26_8xb32_in1k.py',
    'sasa/sa-resnet26_8xb32-130e_in1k.py', 'san/san10_8xb32_in1k.py', 'rednet/rednet50_8xb128-timm_in1k.py'])
def test_learning_rate(name):
    """Epoch by epoch, in steps, as the runner goes."""
    config, steps = load(name), 20
    epochs, formula = config.train_cfg.max_epochs, LEARNING_RATES[expected(name).schedule]
    base = config.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    schedulers = config.param_scheduler if isinstance(config.param_scheduler, list) else [config.param_scheduler]
    schedulers = [PARAM_SCHEDULERS.build(cfg, default_args=dict(optimizer=optimizer, epoch_length=steps))
                  for cfg in schedulers]
    tolerance = dict(rel=0.01, abs=2e-5)  # mmengine's warm-up ends a step early, and multiplies timm's cosine
    for epoch in range(epochs):
        for step in range(steps):
            lr = optimizer.param_groups[0]['lr'] / base
            assert lr == pytest.approx(formula(epoch, step, epochs, steps), **tolerance), (epoch, step)
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()


def test_timm_augmentation():
    """rand-m7-mstd0.5-inc1, --reprob 0.4 --remode pixel, crops of either interpolation."""
    choice, _, augment, erase = load('rednet/rednet50_8xb128-timm_in1k.py').train_pipeline[1:-1]
    assert [crop.interpolation for crop, in choice.transforms] == ['bilinear', 'bicubic']
    assert (augment.policies, augment.num_policies, augment.magnitude_level, augment.magnitude_std) == (
        'timm_increasing', 2, 7, 0.5)
    assert (erase.erase_prob, erase.mode, erase.max_area_ratio) == (0.4, 'rand', 1 / 3)


def test_crops_as_the_text_has_them():
    """A.2: "images are resized to 256 × 256 first, and then 224 × 224 crops are randomly sampled from the resized
    images or their horizontal flips", whatever the image's shape; for evaluation "the center image crops"."""
    config = load('odconv/odconv4x-resnet18_8xb32-crops_in1k.py')
    resize, crop, flip = config.train_dataloader.dataset.pipeline[1:-1]
    assert (plain(resize), plain(crop)) == (dict(type='Resize', scale=(256, 256)),
                                            dict(type='RandomCrop', crop_size=224))
    assert plain(flip) == dict(type='RandomFlip', prob=0.5, direction='horizontal')
    assert [transform.type for transform in config.test_dataloader.dataset.pipeline][1:-1] == ['ResizeEdge',
                                                                                              'CenterCrop']


@pytest.mark.parametrize(('name', 'placement'), [('1x1', '1x1'), ('3x3', '3x3'), ('last-6-blocks', 'last_6_blocks')])
def test_placement(name, placement):
    """Table 9."""
    backbone = load(f'odconv/odconv1x-mobilenet-v2-w050-{name}_8xb32_in1k.py').model.backbone
    assert (backbone.placement, backbone.kernel_num) == (placement, 1)


def first_line(name: str) -> str:
    return (CONFIGS / name).read_text().partition('\n')[0]


OF_A_TABLE = [name for name in IMAGENET if re.match(r'# (ODConv|DCDC|DCD), (Table|\d\.\d:)', first_line(name))]


@pytest.mark.parametrize('name', OF_A_TABLE)
def test_a_config_says_which_result_is_its(name, load_tool):
    """In its first line, as the paper prints it."""
    results = load_tool('paper_results').RESULTS[name.rpartition('/')[2].removesuffix('.py')]
    paper, figure = re.match(r'# (ODConv|DCDC|DCD), [^:]+: (\d\d\.\d+)', first_line(name)).groups()
    top_1, = (value for metric, value in results.items()
              if metric.name == 'Top 1 Accuracy' and metric.source == f'{paper} paper')
    assert figure == f'{top_1:.{len(figure) - 3}f}'


def test_every_variant_says_it():
    assert {name for name in VARIANTS if not name.startswith('kw/')} <= set(OF_A_TABLE)


@pytest.mark.parametrize('name', [name for name in IMAGENET if name.startswith('odconv/')])
def test_kernels(name):
    backbone = load(name).model.backbone
    assert backbone.kernel_num == int(re.search(r'odconv(\d)x', name)[1])
    reduction = re.search(r'reduction(\d)', name)  # Tables 5, 7, 10, 11 and 16
    assert backbone.get('reduction', 1 / 16) == (1 / int(reduction[1]) if reduction else 1 / 16)


@pytest.mark.parametrize('name', [name for name in IMAGENET if 'convnext-tiny' not in name])
def test_size(name):
    """Depth and width are those of the name."""
    config = load(name)
    backbone = config.model.backbone
    width, depth = re.search(r'-w(\d{3})[-_]', name), re.search(r'(?:resnet|rednet|lrnet|san)(\d+)[-_]', name)
    if width:
        assert backbone.get('widen_factor', 1.) == int(width[1]) / 100
    else:
        assert backbone.depth == int(depth[1])
        assert config.model.head.in_channels == (512 if 'resnet' in name and backbone.depth in (10, 18) else 2048)


COCO = [name for name in DETECTORS if name.endswith('_coco.py')]


@pytest.mark.parametrize('name', [name for name in COCO if name.startswith(('kw/', 'fdconv/'))])
def test_detector_recipe_of_a_release(name):
    """FDConv's Mask R-CNN by AdamW, as released."""
    pytest.importorskip('mmdet')
    config = load(name)
    assert (config.train_cfg.max_epochs, config.param_scheduler[1].milestones) == (12, [8, 11])
    adamw = name == 'fdconv/mask-rcnn_fdconv-r50_fpn_1x_coco.py'
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == (('AdamW', 1e-4) if adamw else ('SGD', 0.02))


@pytest.mark.parametrize('name', [name for name in COCO if not name.startswith(('kw/', 'fdconv/'))])
def test_detector_recipe(name):
    """DCDC IV-B2: "train all models for 12 epochs with stochastic gradient descent … learning rate, momentum and weight
    decay factors are set to 0.02 (0.01 for RetinaNet), 0.9, and 0.0001 … scaled by a factor of 0.1 at the 8-th and
    11-th epochs. The 500 iterations linear warmup … with a factor of 0.001 … The shorter and longer sides of input
    images are set to 800 and 1333. The mini-batchsize is set to 16 with eight GPUs … For HTC, the total epoch is set to
    20, and the learning rate is scaled … at the 16-th and 19-th epochs". ODConv A.2 has the same schedule, and "2
    images per GPU"."""
    pytest.importorskip('mmdet')
    config = load(name)
    assert config.train_dataloader.batch_size == (1 if '16xb1' in name else 2)
    assert config.auto_scale_lr.base_batch_size == 16
    assert plain(config.optim_wrapper.optimizer) == sgd(0.01 if 'retinanet' in name else 0.02, 1e-4)
    epochs, milestones = (20, [16, 19]) if '_20e_' in name or '-20e_' in name else (12, [8, 11])
    assert config.train_cfg.max_epochs == epochs
    warm_up, steps = config.param_scheduler
    assert plain(warm_up) == dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
    assert (steps.type, steps.by_epoch, steps.milestones, steps.gamma) == ('MultiStepLR', True, milestones, 0.1)
    resize, = (transform for transform in config.train_dataloader.dataset.pipeline if transform.type == 'Resize')
    assert (resize.scale, resize.keep_ratio) == ((1333, 800), True)

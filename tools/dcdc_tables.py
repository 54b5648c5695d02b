#!/usr/bin/env python3
"""Write docs/dcdc.md: parameters and multiply-adds of DCDC's tables, as printed and as built here."""
from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs' / 'dcdc.md'
CLASSIFIER = 2048 * 1000 + 1000
# network, its arguments, and as printed: parameters in M, FLOPs in G
TABLES = {
    'Table I': [
        ('RedNet', dict(depth=26), '9.23', '1.67'),
        ('RedNet', dict(depth=38), '12.4', '2.15'),
        ('RedNet', dict(depth=50), '15.54', '2.62'),
        ('RedNet', dict(depth=101), '25.65', '4.6'),
        ('DCDCResNet', dict(depth=26), '9.36', '1.71'),
        ('DCDCResNet', dict(depth=38), '12.58', '2.2'),
        ('DCDCResNet', dict(depth=50), '15.8', '2.68'),
        ('DCDCResNet', dict(depth=101), '26.19', '4.71'),
    ],
    'Table III, without GSI or with a static convolution for it': [
        ('DCDCResNet', dict(depth=26, gsi='none'), '9.26', '1.69'),
        ('DCDCResNet', dict(depth=26, gsi='conv_small'), '9.34', '1.72'),
        ('DCDCResNet', dict(depth=26, gsi='conv_large'), '14.32', '2.73'),
    ],
    'Table IV, kernel sizes and width': [
        ('DCDCResNet', dict(depth=26, lsa_dw_kernel_size=5), '9.39', '1.73'),
        ('DCDCResNet', dict(depth=26, lsa_dw_kernel_size=7), '9.45', '1.76'),
        ('DCDCResNet', dict(depth=26, gsi_kernel_size=3), '9.61', '1.71'),
        ('DCDCResNet', dict(depth=26, gsi_kernel_size=5), '10.12', '1.71'),
        ('DCDCResNet', dict(depth=26, gsi_ratio=1.5), '9.46', '1.72'),
        ('DCDCResNet', dict(depth=26, gsi_ratio=2.), '9.64', '1.73'),
        ('DCDCResNet', dict(depth=26, lsa_dw_kernel_size=7, gsi_ratio=2.), '9.74', '1.78'),
        ('DCDCResNet', dict(depth=26, gsi_kernel_size=7, gsi_ratio=2.), '21.88', '1.74'),
    ],
}
# config, and parameters as printed, in M
DETECTORS = {
    'Tables V and VI, what is trained with the stem and the first stage frozen': {
        'rednet/retinanet_rednet50_fpn_1x_coco': '27.8',
        'rednet/retinanet_rednet50_involution-fpn_1x_coco': '26.3',
        'dcdc/retinanet_dcdc-r50_fpn_1x_coco': '28.1',
        'dcdc/retinanet_dcdc-r50_dcdc-fpn_1x_coco': '26.5',
        'dcdc/retinanet_dcdc-r26_dcdc-fpn_1x_coco': '20.2',
        'rednet/faster-rcnn_rednet50_fpn_1x_coco': '31.6',
        'rednet/faster-rcnn_rednet50_involution-fpn_1x_coco': '29.5',
        'dcdc/faster-rcnn_dcdc-r50_fpn_1x_coco': '31.9',
        'dcdc/faster-rcnn_dcdc-r50_dcdc-fpn_1x_coco': '29.8',
        'dcdc/faster-rcnn_dcdc-r26_dcdc-fpn_1x_coco': '23.5',
        'rednet/mask-rcnn_rednet50_fpn_1x_coco': '34.2',
        'rednet/mask-rcnn_rednet50_involution-fpn_1x_coco': '32.2',
        'dcdc/mask-rcnn_dcdc-r50_fpn_1x_coco': '34.5',
        'dcdc/mask-rcnn_dcdc-r50_dcdc-fpn_1x_coco': '32.5',
        'dcdc/mask-rcnn_dcdc-r26_dcdc-fpn_1x_coco': '26.1',
        'dcdc/htc_dcdc-r50_dcdc-fpn_20e_coco': '68.3',
    },
    'Table VII, all parameters': {
        'rednet/panoptic-fpn_rednet50_fpn_1x_coco': '36',
        'rednet/panoptic-fpn_rednet50_involution-fpn_1x_coco': '34',
        'dcdc/panoptic-fpn_dcdc-r50_fpn_1x_coco': '36.3',
        'dcdc/panoptic-fpn_dcdc-r50_dcdc-fpn_1x_coco': '34.3',
    },
}
INTRODUCTION = """# DCDC and RedNet: parameters and multiply-adds

The tables of *Dual Complementary Dynamic Convolution for Image Recognition* ([2211.06163](
https://arxiv.org/abs/2211.06163)), as printed and as built here; `python tools/dcdc_tables.py` writes this page. A
classifier's multiply-adds are those of one 224×224 image: convolutions, FCs and the application of predicted kernels;
not norms, biases, activations and averages. All parameter counts of Tables I, III and IV agree to the printed digit.
The paper does not say how it counts FLOPs. Its rows hardly grow with `gsi_kernel_size`, so it seems to leave out GSI's
own convolution, which is counted here.

Tables V and VI agree with the trainable parameters under `frozen_stages=1`; Table VII only agrees with all of them.
"""


def involution2d(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """The convolutions that predict kernels, which all run at the output's size, and the kernels' application."""
    predict = sum(conv.weight.numel() for conv in module.modules() if isinstance(conv, nn.Conv2d))
    return predict * math.prod(y.shape[2:]) + y.numel() * math.prod(module.kernel_size)


def gsi(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """1×1 convolutions before and behind, the FC, and the convolution by the kernel that it puts out."""
    before, behind = module.conv1.conv.weight.numel(), module.conv2.conv.weight.numel()
    kernel = module.conv1.out_channels**2 * module.kernel_size**2
    fc = 0 if module.fc is None else module.fc.weight.numel()
    return before * math.prod(x.shape[2:]) + fc + (kernel + behind) * math.prod(y.shape[2:])


def conv2d(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """A convolution."""
    return module.weight.numel() * math.prod(y.shape[2:])


HANDLERS = {'Involution2d': involution2d, 'LSA': involution2d, 'GSI': gsi, 'Conv2d': conv2d}


def count_madds(model: nn.Module, size: int = 224) -> int:
    """Multiply-adds of one image; a handler counts all that its module holds."""
    counts = []

    def watch(module: nn.Module) -> None:
        handler = HANDLERS.get(type(module).__name__)
        if handler is not None:
            module.register_forward_hook(lambda module, args, y: counts.append(handler(module, args[0], y)))
            return
        for child in module.children():
            watch(child)

    watch(model)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, size, size, device='meta'))
    return sum(counts)


def measure(network: str, kwargs: dict) -> tuple[float, float]:
    """Parameters in M and multiply-adds in G of a classifier with 1000 classes."""
    from mmengine.registry import MODELS

    import dynconv_mm  # noqa: F401
    with torch.device('meta'):
        model = MODELS.build(dict(kwargs, type=network))
    parameters = sum(parameter.numel() for parameter in model.parameters()) + CLASSIFIER
    return parameters / 1e6, (count_madds(model) + CLASSIFIER - 1000) / 1e9


def count_detector(config: str, trainable: bool) -> float:
    """Parameters in M of a detector, all or those that are trained."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    cfg = Config.fromfile(ROOT / 'configs' / f'{config}.py')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return sum(parameter.numel() for parameter in model.parameters()
               if parameter.requires_grad or not trainable) / 1e6


def render() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for title, rows in TABLES.items():
        lines = [f'## {title}\n', '| network | Params (M), paper | here | FLOPs (G), paper | here |',
                 '|---|---:|---:|---:|---:|']
        for network, kwargs, printed, flops in rows:
            parameters, madds = measure(network, kwargs)
            call = ', '.join(f'{name}={value!r}' for name, value in kwargs.items())
            lines.append(f'| `{network}({call})` | {printed} | {parameters:.3f} | {flops} | {madds:.3f} |')
        parts.append('\n'.join(lines) + '\n')
    for title, rows in DETECTORS.items():
        lines = [f'## {title}\n', '| config | Params (M), paper | here |', '|---|---:|---:|']
        for config, printed in rows.items():
            count = count_detector(config, trainable='VII' not in title)
            lines.append(f'| [`{Path(config).name}`](../configs/{config}.py) | {printed} | {count:.2f} |')
        parts.append('\n'.join(lines) + '\n')
    return '\n'.join(parts)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if the page is not up to date')
    args = parser.parse_args(argv)
    text = render()
    if PAGE.exists() and PAGE.read_text(encoding='utf-8') == text:
        print('docs/dcdc.md: up to date')
        return
    if args.check:
        raise SystemExit('dcdc_tables: docs/dcdc.md is not up to date; run tools/dcdc_tables.py')
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding='utf-8')
    print('docs/dcdc.md: written')


if __name__ == '__main__':
    main()

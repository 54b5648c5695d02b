#!/usr/bin/env python3
"""Write docs/dcdc.md: parameters and multiply-adds of DCDC's tables, as printed and as built here."""
from __future__ import annotations

from pathlib import Path

from paper_tables import ROOT, Figure, build, count_params, load_config, measure, table, update_page

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


def measure_classifier(network: str, kwargs: dict) -> Figure:
    """A network with a linear classifier of 1000 classes."""
    from mmengine.config import ConfigDict
    backbone = measure(build(ConfigDict(model=dict(kwargs, type=network), default_scope='dynconv_mm')))
    return Figure(backbone.params + CLASSIFIER / 1e6, backbone.madds + (CLASSIFIER - 1000) / 1e6)


def render() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for title, networks in TABLES.items():
        rows = []
        for network, kwargs, params, flops in networks:
            ours = measure_classifier(network, kwargs)
            call = ', '.join(f'{name}={value!r}' for name, value in kwargs.items())
            rows.append([f'`{network}({call})`', params, f'{ours.params:.3f}', flops, f'{ours.madds / 1e3:.3f}'])
        header = ['network', 'Params (M), paper', 'here', 'FLOPs (G), paper', 'here']
        parts.append(f'## {title}\n\n{table(header, rows)}')
    for title, detectors in DETECTORS.items():
        rows = []
        for config, params in detectors.items():
            model = build(load_config(f'{config}.py'))
            ours = count_params(model, trainable='VII' not in title)
            rows.append([f'[`{Path(config).name}`](../configs/{config}.py)', params, f'{ours:.2f}'])
        parts.append(f"## {title}\n\n{table(['config', 'Params (M), paper', 'here'], rows)}")
    return '\n'.join(parts)


def main(argv: list[str] | None = None) -> None:
    update_page(PAGE, render, __doc__, argv)


if __name__ == '__main__':
    main()

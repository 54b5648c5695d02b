"""What the papers report of the networks that configs/ builds. None of it was measured here."""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

CLASSIFICATION, DETECTION = 'Image Classification', 'Object Detection'
INSTANCES, PANOPTIC = 'Instance Segmentation', 'Panoptic Segmentation'


class Metric(NamedTuple):
    """A column of results."""

    task: str
    name: str
    source: str  # the paper


def columns(task: str, source: str, *names: str) -> tuple[Metric, ...]:
    """The columns of a paper's table."""
    return tuple(Metric(task, name, source) for name in names)


ODCONV = columns(CLASSIFICATION, 'ODConv paper', 'Top 1 Accuracy', 'Top 5 Accuracy')
DCD = columns(CLASSIFICATION, 'DCD paper', 'Top 1 Accuracy')
DCDC = columns(CLASSIFICATION, 'DCDC paper', 'Top 1 Accuracy')
ODCONV_BOX = columns(DETECTION, 'ODConv paper', *(f'box AP{size}' for size in ('', '50', '75', 'S', 'M', 'L')))
DCDC_BOX = columns(DETECTION, 'DCDC paper', *(f'box AP{size}' for size in ('', 'S', 'M', 'L')))
DCDC_MASK = columns(INSTANCES, 'DCDC paper', *(f'mask AP{size}' for size in ('', 'S', 'M', 'L')))
FDCONV_BOX = columns(DETECTION, 'FDConv paper', 'box AP')
FDCONV_MASK = columns(INSTANCES, 'FDConv paper', 'mask AP')
DCDC_PQ = columns(PANOPTIC, 'DCDC paper', *(f'{measure}{part}' for measure in ('PQ', 'SQ', 'RQ')
                                            for part in ('', ' of things', ' of stuff')))
KW = columns(CLASSIFICATION, 'KernelWarehouse paper', 'Top 1 Accuracy')
KW_BOX = columns(DETECTION, 'KernelWarehouse paper', 'box AP')
KW_MASK = columns(INSTANCES, 'KernelWarehouse paper', 'mask AP')
#: those that the tables of the READMEs show, in their order; the metafiles hold all
METRICS = tuple(table[0] for table in (DCD, ODCONV, DCDC, KW, ODCONV_BOX, DCDC_BOX, DCDC_MASK, KW_BOX, KW_MASK,
                                       DCDC_PQ, FDCONV_BOX, FDCONV_MASK))

# ODConv (ICLR 2022), Tables 1 to 3, 5 to 7, 9 to 12, 14 to 16, and 3.1: Top-1 and Top-5, by the name of the config
# without its end
_IMAGENET = {
    'resnet18_8xb32': (70.25, 89.38),
    'condconv8x-resnet18_8xb32': (71.99, 90.27),
    'dyconv4x-resnet18_8xb32': (72.76, 90.79),
    'dcd-resnet18_8xb32': (72.33, 90.65),
    'odconv1x-resnet18_8xb32': (73.10, 91.10),
    'odconv2x-resnet18_8xb32': (73.59, 91.08),
    'odconv3x-resnet18_8xb32': (73.77, 91.35),
    'odconv4x-resnet18_8xb32': (73.97, 91.35),
    'odconv8x-resnet18_8xb32': (74.08, 91.44),
    'se-resnet18_8xb32': (70.98, 90.03),
    'cbam-resnet18_8xb32': (71.01, 89.85),
    'eca-resnet18_8xb32': (70.60, 89.68),
    'cgc-resnet18_8xb32': (71.60, 90.35),
    'weightnet-resnet18_8xb32': (71.56, 90.38),
    'we-resnet18_8xb32': (71.00, 90.00),
    'resnet50_8xb32': (76.23, 93.01),
    'condconv8x-resnet50_8xb32': (76.70, 93.12),
    'dyconv4x-resnet50_8xb32': (76.82, 93.16),
    'dcd-resnet50_8xb32': (76.92, 93.46),
    'odconv1x-resnet50_8xb32': (77.96, 93.84),
    'odconv4x-resnet50_8xb32': (78.52, 94.01),
    'se-resnet50_8xb32': (77.31, 93.63),
    'cbam-resnet50_8xb32': (77.46, 93.59),
    'eca-resnet50_8xb32': (77.34, 93.64),
    'cgc-resnet50_8xb32': (76.79, 93.37),
    'weightnet-resnet50_8xb32': (77.51, 93.69),
    'we-resnet50_8xb32': (77.10, 93.50),
    'resnet101_8xb32': (77.41, 93.67),
    'se-resnet101_8xb32': (78.42, 94.15),
    'cbam-resnet101_8xb32': (78.50, 94.20),
    'eca-resnet101_8xb32': (78.60, 94.34),
    'odconv1x-resnet101_8xb32': (78.98, 94.38),
    'odconv2x-resnet101_8xb32': (79.27, 94.47),
    'mobilenet-v2-w100_8xb32': (71.65, 90.22),
    'condconv8x-mobilenet-v2-w100_8xb32': (74.13, 91.67),
    'dyconv4x-mobilenet-v2-w100_8xb32': (74.94, 91.83),
    'dcd-mobilenet-v2-w100_8xb32-150e': (74.18, 91.72),
    'odconv1x-mobilenet-v2-w100_8xb32': (74.84, 92.13),
    'odconv4x-mobilenet-v2-w100_8xb32': (75.42, 92.18),
    'mobilenet-v2-w075_8xb32': (69.18, 88.82),
    'condconv8x-mobilenet-v2-w075_8xb32': (71.79, 90.17),
    'dyconv4x-mobilenet-v2-w075_8xb32': (72.75, 90.93),
    'dcd-mobilenet-v2-w075_8xb32-150e': (71.92, 90.20),
    'odconv1x-mobilenet-v2-w075_8xb32': (72.43, 90.82),
    'odconv4x-mobilenet-v2-w075_8xb32': (73.81, 91.33),
    'mobilenet-v2-w050_8xb32': (64.30, 85.21),
    'condconv8x-mobilenet-v2-w050_8xb32': (67.24, 87.51),
    'dyconv4x-mobilenet-v2-w050_8xb32': (69.05, 88.37),
    'dcd-mobilenet-v2-w050_8xb32-150e': (69.32, 88.44),
    'odconv1x-mobilenet-v2-w050_8xb32': (68.26, 87.98),
    'odconv4x-mobilenet-v2-w050_8xb32': (70.01, 89.01),
    'odconv4x-resnet18_8xb32-crops': (73.97, 91.35),
    'condconv8x-resnet18_8xb32-no-attention': (70.33, ),  # "top-1 gain averaged over 3 runs": 0.08 over 70.25
    'dyconv4x-resnet18_8xb32-no-attention': (70.39, ),  # 0.14
    'odconv1x-mobilenet-v2-w050-1x1_8xb32': (67.43, 87.41),
    'odconv1x-mobilenet-v2-w050-3x3_8xb32': (67.54, 87.55),
    'odconv1x-mobilenet-v2-w050-last-6-blocks_8xb32': (67.29, 87.39),
    'odconv1x-resnet18-reduction4_8xb32': (73.41, 91.29),
    'odconv1x-resnet18-reduction8_8xb32': (73.11, 91.10),
    'odconv1x-resnet18-reduction4-spatial_8xb32': (72.42, 90.76),
    'odconv1x-resnet18-reduction4-channel_8xb32': (72.07, 90.59),
    'odconv1x-resnet18-reduction4-filter_8xb32': (71.46, 90.43),
    'odconv1x-resnet18-reduction4-spatial-channel_8xb32': (73.13, 91.14),
    'odconv1x-resnet18-reduction4-spatial-filter_8xb32': (72.80, 90.99),
    'odconv1x-resnet18-reduction4-channel-filter_8xb32': (72.20, 90.67),
    'odconv1x-resnet18-reduction4-softmax_8xb32': (73.23, 91.19),
    'odconv1x-resnet18-reduction4-pool3_8xb32': (73.47, 91.31),
    'odconv4x-resnet18-reduction4-softmax_8xb32': (73.97, 91.50),
    'odconv4x-resnet18-unshared_8xb32': (74.16, 91.47),
    'odconv1x-resnet18-reduction4_8xb32-no-annealing': (72.35, 90.65),
    'odconv4x-resnet18-reduction4_8xb32': (74.33, 91.53),
    'odconv4x-resnet18-reduction4_8xb32-no-annealing': (73.29, 90.95),
    'odconv4x-se-resnet18_8xb32': (74.04, 91.38),
    'odconv4x-resnet18_8xb32-lbs': (74.15, 91.42),
    'odconv4x-resnet18_8xb32-mixup': (74.05, 91.63),
    'odconv4x-resnet18_8xb32-lbs-mixup': (74.18, 91.68),
    'odconv4x-resnet18_8xb32-lbs-mixup-120e': (74.59, 91.74),
}
# Table 13, MobileNetV2 trained for 300 epochs: Top-1 at widths 1.0, 0.75 and 0.5
_300_EPOCHS = {
    '': (72.07, 69.76, 65.10), 'condconv8x-': (74.31, 72.18, 68.45), 'dyconv4x-': (75.08, 73.48, 69.83),
    'dcd-': (74.48, 72.39, 70.08), 'odconv1x-': (75.13, 73.03, 69.16), 'odconv4x-': (75.68, 74.45, 70.87),
}
# DCD (ICLR 2021), Tables 1 to 4 and 5.2, what was trained for it
_DCD = {
    'resnet10': 63.5, 'dcd-resnet10': 68.8, 'dcd-resnet18': 73.1, 'dcd-resnet50': 77.9, 'dcd-mobilenet-v2-w100': 75.2,
    'dcd-mobilenet-v2-w050': 70.2, 'dcd-mobilenet-v2-w035': 66.6,
    'dcd-resnet18-attention': 71.5, 'dcd-resnet18-fusion': 72.8, 'dcd-resnet18-joint': 71.3,
    **{f'dcd-mobilenet-v2-w050-{build}': top_1 for build, top_1 in {
        'pw-attention': 68.2, 'pw-fusion': 69.2, 'pw': 69.8, 'pw-latent025': 68.7, 'pw-latent050': 69.0,
        'pw-latent075': 69.6, 'pw-fusion-blocks2': 68.5, 'pw-fusion-blocks4': 68.4, 'pw-fusion-blocks8': 68.3,
        'pw-blocks2': 68.9, 'pw-blocks4': 68.8, 'pw-blocks8': 68.5, 'dw': 68.3, 'cls': 66.6, 'dw-cls': 69.0,
        'dw-pw': 69.6, 'dw-pw-cls': 70.0}.items()},
}
# DCDC (2022), Tables I to IV; the starred results are timm's recipe
_DCDC = {
    'rednet26_8xb32': 75.9, 'rednet38_8xb32': 77.6, 'rednet50_8xb32': 78.4, 'rednet101_8xb32': 79.1,
    'dcdc-resnet26_8xb32': 77.4, 'dcdc-resnet38_8xb32': 78.5, 'dcdc-resnet50_8xb32': 78.9,
    'san10_8xb32': 75.5, 'san15_8xb32': 77.1, 'san19_8xb32': 77.4,
    'lrnet26_8xb32-130e': 75.7, 'lrnet50_8xb32-130e': 77.3, 'lrnet101_8xb32-130e': 78.5,
    'sa-resnet26_8xb32-130e': 74.8, 'sa-resnet38_8xb32-130e': 76.9, 'sa-resnet50_8xb32-130e': 77.6,
    'resnet26_8xb32-130e': 73.6, 'resnet38_8xb32-130e': 76.0, 'resnet50_8xb32-130e': 76.8, 'resnet101_8xb32-130e': 78.5,
    'resnet50_8xb128-timm': 77.2, 'resnet101_8xb128-timm': 78.9, 'se-resnet50_8xb128-timm': 77.8,
    'se-resnet101_8xb128-timm': 79.3, 'rednet50_8xb128-timm': 79.4, 'dcdc-resnet50_8xb128-timm': 80.1,
    'dcdc-resnet101_8xb128-timm': 80.8, 'ddf-resnet50_8xb128-timm': 79.1, 'ddf-resnet101_8xb128-timm': 80.2,
    'dwcondconv8x-resnet50_8xb128-timm': 78.3,
    'dwweightnet-resnet50_8xb128-timm': 78.0,
    **{f'dcdc-resnet26-{build}_8xb32': top_1 for build, top_1 in {
        'lsa': 76.7, 'conv-small': 76.9, 'conv-large': 77.4, 'lsa5': 77.55, 'lsa7': 77.63, 'gsi3': 77.39, 'gsi5': 77.40,
        'ratio15': 77.53, 'ratio20': 77.67, 'lsa7-ratio20': 77.80, 'gsi7-ratio20': 77.90}.items()},
}
# KernelWarehouse (ICML 2024): Top-1; 300 epochs, MobileNetV2 150
_KW = {
    'kw1d4x-resnet18_32xb128-300e': 72.73, 'kw1d2x-resnet18_32xb128-300e': 73.33, 'kw1x-resnet18_32xb128-300e': 74.77,
    'kw2x-resnet18_32xb128-300e': 75.19, 'kw4x-resnet18_32xb128-300e': 76.05, 'kw1d2x-resnet50_32xb128-300e': 79.30,
    'kw1x-resnet50_32xb128-300e': 80.38, 'kw4x-resnet50_32xb128-300e': 81.05,
    'kw1x-convnext-tiny_32xb128-300e': 82.51,
    'kw1d2x-mobilenet-v2-w100_8xb32': 72.59, 'kw1x-mobilenet-v2-w100_8xb32': 74.68,
    'kw4x-mobilenet-v2-w100_8xb32': 75.92, 'kw1d2x-mobilenet-v2-w050_8xb32': 65.20,
    'kw1x-mobilenet-v2-w050_8xb32': 68.29, 'kw4x-mobilenet-v2-w050_8xb32': 70.26,
}
# ODConv, Table 4: (detector, backbone) -> AP, AP50, AP75, APS, APM, APL, by method
_COCO = {
    ('faster-rcnn', 'r50'): {
        'static': (37.2, 57.8, 40.4, 21.5, 40.6, 48.0), 'condconv': (38.1, 58.9, 41.5, 22.4, 42.1, 48.7),
        'dyconv': (38.3, 59.7, 41.6, 22.6, 42.3, 49.4), 'dcd': (38.1, 59.3, 41.3, 21.9, 42.0, 49.5),
        'odconv1x': (39.0, 60.5, 42.3, 23.4, 42.3, 50.5), 'odconv4x': (39.2, 60.7, 42.6, 23.1, 42.6, 51.0)},
    ('faster-rcnn', 'mobilenet-v2'): {
        'static': (31.3, 51.1, 33.1, 17.4, 33.5, 41.2), 'condconv': (33.7, 54.9, 35.6, 19.3, 36.4, 43.7),
        'dyconv': (34.5, 55.6, 36.5, 19.8, 37.3, 44.7), 'dcd': (33.3, 53.0, 35.1, 19.9, 36.1, 43.2),
        'odconv1x': (34.3, 55.6, 36.5, 20.7, 37.3, 44.5), 'odconv4x': (35.1, 56.7, 37.0, 20.6, 38.0, 45.2)},
    ('mask-rcnn', 'r50'): {
        'static': (38.0, 58.6, 41.5, 21.6, 41.5, 49.2), 'condconv': (38.8, 59.3, 42.3, 22.5, 42.5, 50.3),
        'dyconv': (39.2, 60.3, 42.5, 23.0, 42.9, 51.4), 'dcd': (38.8, 59.8, 42.2, 23.1, 42.7, 49.8),
        'odconv1x': (39.9, 61.2, 43.5, 23.6, 43.8, 52.3), 'odconv4x': (40.1, 61.5, 43.6, 24.0, 43.6, 52.3)},
    ('mask-rcnn', 'mobilenet-v2'): {
        'static': (32.2, 52.1, 34.2, 18.4, 34.4, 42.4), 'condconv': (34.4, 55.4, 36.6, 19.8, 36.9, 44.6),
        'dyconv': (35.2, 56.2, 37.5, 20.7, 38.0, 45.5), 'dcd': (34.3, 54.9, 36.6, 20.6, 37.1, 44.8),
        'odconv1x': (35.0, 56.1, 37.3, 19.9, 37.7, 46.2), 'odconv4x': (35.8, 57.0, 38.1, 20.5, 38.5, 45.9)},
}
# DCDC, Table V, and of Table VI the boxes: AP, APS, APM, APL
_BOXES = {
    'retinanet_r50_fpn_1x': (36.6, 20.9, 40.6, 47.5),
    'retinanet_r101_fpn_1x': (38.5, 21.7, 42.8, 50.4),
    'retinanet_rednet50_fpn_1x': (38.3, 21.1, 41.8, 50.9),
    'retinanet_rednet50_involution-fpn_1x': (38.2, 21.8, 41.6, 50.7),
    'retinanet_dcdc-r26_dcdc-fpn_1x': (37.3, 20.6, 41.4, 49.2),
    'retinanet_dcdc-r50_fpn_1x': (39.6, 22.7, 43.5, 53.2),
    'retinanet_dcdc-r50_dcdc-fpn_1x': (39.5, 23.3, 43.2, 52.4),
    'faster-rcnn_r50_fpn_1x': (37.7, 21.7, 41.6, 48.4),
    'faster-rcnn_r101_fpn_1x': (39.4, 22.4, 43.7, 51.1),
    'faster-rcnn_rednet50_fpn_1x': (39.5, 23.3, 42.9, 52.2),
    'faster-rcnn_rednet50_involution-fpn_1x': (40.2, 24.2, 43.3, 52.7),
    'faster-rcnn_dcdc-r26_dcdc-fpn_1x': (38.7, 22.4, 42.2, 50.8),
    'faster-rcnn_dcdc-r50_fpn_1x': (40.4, 24.0, 43.8, 52.6),
    'faster-rcnn_dcdc-r50_dcdc-fpn_1x': (40.9, 24.6, 44.1, 53.5),
    'mask-rcnn_r50_fpn_1x': (38.4, 21.9, 42.3, 49.7),
    'mask-rcnn_r101_fpn_1x': (40.0, 22.6, 44.0, 52.6),
    'mask-rcnn_rednet50_fpn_1x': (40.2, 24.2, 43.4, 52.5),
    'mask-rcnn_rednet50_involution-fpn_1x': (40.8, 24.2, 44.0, 53.0),
    'mask-rcnn_dcdc-r26_dcdc-fpn_1x': (39.5, 22.8, 43.2, 51.7),
    'mask-rcnn_dcdc-r50_fpn_1x': (40.9, 23.9, 44.4, 52.8),
    'mask-rcnn_dcdc-r50_dcdc-fpn_1x': (41.7, 25.8, 45.1, 53.7),
    'htc_r50_fpn_20e': (43.3, 24.3, 46.4, 57.7),
    'htc_r101_fpn_20e': (44.8, 25.7, 48.5, 60.2),
    'htc_x101-32x4d_fpn_16xb1-20e': (46.1, 27.1, 49.6, 60.9),
    'htc_dcdc-r50_dcdc-fpn_20e': (46.1, 28.9, 49.2, 60.7),
}
# Table VI, the masks: AP, APS, APM, APL
_MASKS = {
    'mask-rcnn_r50_fpn_1x': (35.1, 18.5, 38.6, 46.9),
    'mask-rcnn_r101_fpn_1x': (36.1, 18.8, 39.7, 49.5),
    'mask-rcnn_rednet50_fpn_1x': (36.1, 19.9, 39.3, 48.9),
    'mask-rcnn_rednet50_involution-fpn_1x': (36.4, 19.9, 39.4, 49.1),
    'mask-rcnn_dcdc-r26_dcdc-fpn_1x': (35.4, 16.7, 38.1, 51.6),
    'mask-rcnn_dcdc-r50_fpn_1x': (36.5, 17.4, 39.5, 52.2),
    'mask-rcnn_dcdc-r50_dcdc-fpn_1x': (37.1, 19.1, 39.9, 53.0),
    'htc_r50_fpn_20e': (38.3, 19.9, 41.0, 53.0),
    'htc_r101_fpn_20e': (39.6, 21.3, 42.9, 55.0),
    'htc_x101-32x4d_fpn_16xb1-20e': (40.5, 22.1, 43.9, 55.5),
    'htc_dcdc-r50_dcdc-fpn_20e': (40.6, 21.1, 43.2, 58.8),
}
# Table VII: PQ, SQ, RQ, each of all, of things, of stuff
_PANOPTIC = {
    'panoptic-fpn_r50_fpn_1x': (40.3, 47.8, 29.0, 77.8, 80.9, 73.2, 49.4, 57.6, 37.0),
    'panoptic-fpn_r101_fpn_1x': (42.2, 50.1, 30.3, 78.3, 81.4, 73.6, 51.4, 59.9, 38.5),
    'panoptic-fpn_rednet50_fpn_1x': (42.4, 49.3, 32.0, 78.4, 81.0, 74.5, 51.8, 59.3, 40.5),
    'panoptic-fpn_rednet50_involution-fpn_1x': (42.8, 49.8, 32.1, 78.4, 80.8, 74.8, 52.3, 60.2, 40.4),
    'panoptic-fpn_dcdc-r50_fpn_1x': (43.1, 50.0, 32.7, 78.6, 81.1, 74.9, 52.6, 60.1, 41.2),
    'panoptic-fpn_dcdc-r50_dcdc-fpn_1x': (43.3, 50.3, 32.7, 78.9, 81.0, 75.7, 52.7, 60.5, 40.9),
}


def _results() -> dict[str, dict[Metric, float]]:
    results: dict[str, dict[Metric, float]] = {}

    def add(name: str, table: tuple[Metric, ...], values: Iterable[float]) -> None:
        results.setdefault(name, {}).update(zip(table, values))

    for network, top_1 in _DCD.items():
        add(f'{network}_8xb32_in1k', DCD, [top_1])
    for name, values in _IMAGENET.items():
        add(f'{name}_in1k', ODCONV, values)
    for prefix, values in _300_EPOCHS.items():
        for width, top_1 in zip(('100', '075', '050'), values):
            add(f'{prefix}mobilenet-v2-w{width}_8xb32-300e_in1k', ODCONV, [top_1])
    for name, top_1 in _DCDC.items():
        add(f'{name}_in1k', DCDC, [top_1])
    for name, top_1 in _KW.items():
        add(f'{name}_in1k', KW, [top_1])
    for ratio, box, mask in (('1x', 41.8, 38.4), ('4x', 42.4, 38.9)):
        add(f'mask-rcnn_kw{ratio}-r50_fpn_1x_coco', (*KW_BOX, *KW_MASK), [box, mask])
    for (detector, backbone), methods in _COCO.items():
        for method, values in methods.items():
            network = backbone if method == 'static' else f'{method}-{backbone}'
            add(f'{detector}_{network}_fpn_1x_coco', ODCONV_BOX, values)
    for table, rows in ((DCDC_BOX, _BOXES), (DCDC_MASK, _MASKS), (DCDC_PQ, _PANOPTIC)):
        for name, values in rows.items():
            add(f'{name}_coco', table, values)
    # FDConv (CVPR 2025), its detectors with ResNet50: AP of boxes, and of masks
    add('faster-rcnn_fdconv-r50_fpn_1x_coco', FDCONV_BOX, [39.4])
    add('mask-rcnn_fdconv-r50_fpn_1x_coco', (*FDCONV_BOX, *FDCONV_MASK), [42.4, 38.6])
    return results


#: by the name of a config
RESULTS: dict[str, dict[Metric, float]] = _results()


def tasks(name: str) -> list[str]:
    """What the network of a config does, by the config's name."""
    if name.endswith('_in1k'):
        return [CLASSIFICATION]
    if name.startswith('panoptic-fpn'):
        return [PANOPTIC]
    return [DETECTION, INSTANCES] if name.startswith(('mask-rcnn', 'htc')) else [DETECTION]

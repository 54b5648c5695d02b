"""What the papers report of the networks that configs/ builds. None of it was measured here."""
from __future__ import annotations

from typing import NamedTuple

CLASSIFICATION, DETECTION = 'Image Classification', 'Object Detection'
INSTANCES, PANOPTIC = 'Instance Segmentation', 'Panoptic Segmentation'


class Metric(NamedTuple):
    """A column of results."""

    task: str
    name: str
    source: str  # the paper, and what is unlike the config's recipe


ODCONV = Metric(CLASSIFICATION, 'Top 1 Accuracy', 'ODConv paper')
DCD = Metric(CLASSIFICATION, 'Top 1 Accuracy', 'DCD paper')
DCDC = Metric(CLASSIFICATION, 'Top 1 Accuracy', 'DCDC paper')
DCDC_TIMM = Metric(CLASSIFICATION, 'Top 1 Accuracy', "DCDC paper, timm's training")
ODCONV_BOX = Metric(DETECTION, 'box AP', 'ODConv paper')
DCDC_BOX = Metric(DETECTION, 'box AP', 'DCDC paper')
DCDC_MASK = Metric(INSTANCES, 'mask AP', 'DCDC paper')
DCDC_PQ = Metric(PANOPTIC, 'PQ', 'DCDC paper')

METRICS = (DCD, ODCONV, DCDC, DCDC_TIMM, ODCONV_BOX, DCDC_BOX, DCDC_MASK, DCDC_PQ)  # in the order of the tables

# ODConv (ICLR 2022), Tables 1 to 3 and 6: network -> Top-1 by method
_IMAGENET = {
    'resnet18': {'condconv8x': 71.99, 'dyconv4x': 72.76, 'dcd': 72.33, 'odconv1x': 73.10, 'odconv2x': 73.59,
                 'odconv3x': 73.77, 'odconv4x': 73.97, 'odconv8x': 74.08},
    'resnet50': {'condconv8x': 76.70, 'dyconv4x': 76.82, 'dcd': 76.92, 'odconv1x': 77.96, 'odconv4x': 78.52},
    'resnet101': {'odconv1x': 78.98, 'odconv2x': 79.27},
    'mobilenet-v2-w100': {'condconv8x': 74.13, 'dyconv4x': 74.94, 'dcd': 74.18, 'odconv1x': 74.84, 'odconv4x': 75.42},
    'mobilenet-v2-w075': {'condconv8x': 71.79, 'dyconv4x': 72.75, 'dcd': 71.92, 'odconv1x': 72.43, 'odconv4x': 73.81},
    'mobilenet-v2-w050': {'condconv8x': 67.24, 'dyconv4x': 69.05, 'dcd': 69.32, 'odconv1x': 68.26, 'odconv4x': 70.01},
}
# DCD (ICLR 2021), Table 4
_DCD = {'resnet18': 73.1, 'resnet50': 77.9, 'mobilenet-v2-w100': 75.2, 'mobilenet-v2-w050': 70.2}
# DCDC (2022), Table I: with MMClassification's training, with timm's
_TABLE_1 = {
    'rednet26': (75.9, None), 'rednet38': (77.6, None), 'rednet50': (78.4, 79.4), 'rednet101': (79.1, None),
    'dcdc-resnet26': (77.4, None), 'dcdc-resnet38': (78.5, None), 'dcdc-resnet50': (78.9, 80.1),
    'dcdc-resnet101': (None, 80.8),
}
# ODConv, Table 4: (detector, backbone) -> box AP by method
_COCO = {
    ('faster-rcnn', 'r50'): {'condconv': 38.1, 'dyconv': 38.3, 'dcd': 38.1, 'odconv1x': 39.0, 'odconv4x': 39.2},
    ('faster-rcnn', 'mobilenet-v2'): {'condconv': 33.7, 'dyconv': 34.5, 'dcd': 33.3, 'odconv1x': 34.3,
                                      'odconv4x': 35.1},
    ('mask-rcnn', 'r50'): {'condconv': 38.8, 'dyconv': 39.2, 'dcd': 38.8, 'odconv1x': 39.9, 'odconv4x': 40.1},
    ('mask-rcnn', 'mobilenet-v2'): {'condconv': 34.4, 'dyconv': 35.2, 'dcd': 34.3, 'odconv1x': 35.0, 'odconv4x': 35.8},
}
# DCDC, Tables V to VII: box AP, mask AP, PQ
_DETECTORS = {
    'retinanet_rednet50_fpn_1x': (38.3, None, None),
    'retinanet_rednet50_involution-fpn_1x': (38.2, None, None),
    'faster-rcnn_rednet50_fpn_1x': (39.5, None, None),
    'faster-rcnn_rednet50_involution-fpn_1x': (40.2, None, None),
    'mask-rcnn_rednet50_fpn_1x': (40.2, 36.1, None),
    'mask-rcnn_rednet50_involution-fpn_1x': (40.8, 36.4, None),
    'panoptic-fpn_rednet50_fpn_1x': (None, None, 42.4),
    'panoptic-fpn_rednet50_involution-fpn_1x': (None, None, 42.8),
    'retinanet_dcdc-r26_dcdc-fpn_1x': (37.3, None, None),
    'retinanet_dcdc-r50_fpn_1x': (39.6, None, None),
    'retinanet_dcdc-r50_dcdc-fpn_1x': (39.5, None, None),
    'faster-rcnn_dcdc-r26_dcdc-fpn_1x': (38.7, None, None),
    'faster-rcnn_dcdc-r50_fpn_1x': (40.4, None, None),
    'faster-rcnn_dcdc-r50_dcdc-fpn_1x': (40.9, None, None),
    'mask-rcnn_dcdc-r26_dcdc-fpn_1x': (39.5, 35.4, None),
    'mask-rcnn_dcdc-r50_fpn_1x': (40.9, 36.5, None),
    'mask-rcnn_dcdc-r50_dcdc-fpn_1x': (41.7, 37.1, None),
    'htc_dcdc-r50_dcdc-fpn_20e': (46.1, 40.6, None),
    'panoptic-fpn_dcdc-r50_fpn_1x': (None, None, 43.1),
    'panoptic-fpn_dcdc-r50_dcdc-fpn_1x': (None, None, 43.3),
}


def _results() -> dict[str, dict[Metric, float | None]]:
    results: dict[str, dict[Metric, float | None]] = {}
    for network, methods in _IMAGENET.items():
        for method, top_1 in methods.items():
            own = {DCD: _DCD.get(network)} if method == 'dcd' else {}
            results[f'{method}-{network}_8xb32_in1k'] = {**own, ODCONV: top_1}
    for network, values in _TABLE_1.items():
        results[f'{network}_8xb32_in1k'] = dict(zip((DCDC, DCDC_TIMM), values))
    for (detector, backbone), methods in _COCO.items():
        for method, box_ap in methods.items():
            results[f'{detector}_{method}-{backbone}_fpn_1x_coco'] = {ODCONV_BOX: box_ap}
    for name, values in _DETECTORS.items():
        results[f'{name}_coco'] = dict(zip((DCDC_BOX, DCDC_MASK, DCDC_PQ), values))
    return {name: {metric: value for metric, value in values.items() if value is not None}
            for name, values in results.items()}


#: by the name of a config
RESULTS: dict[str, dict[Metric, float]] = _results()


def tasks(name: str) -> list[str]:
    """What the network of a config does, by the config's name."""
    if name.endswith('_in1k'):
        return [CLASSIFICATION]
    if name.startswith('panoptic-fpn'):
        return [PANOPTIC]
    return [DETECTION, INSTANCES] if name.startswith(('mask-rcnn', 'htc')) else [DETECTION]

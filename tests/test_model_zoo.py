"""The networks by name: what the model index lists, and what is built from it."""
import re
import sys

import numpy as np
import pytest
import torch
from mmengine.fileio import load

import dynconv_mm
from dynconv_mm import get_model, list_models
from dynconv_mm.conversion import CheckpointError

SMALL = 'odconv1x-mobilenet-v2-w050_8xb32_in1k'
THIN = dict(backbone=dict(widen_factor=0.25), head=dict(num_classes=3))


def test_all_configs_are_listed(root):
    names = {path.stem for path in (root / 'configs').glob('*/*_*.py') if path.parent.name not in ('_base_', 'demo')}
    assert set(list_models()) == names
    assert list_models() == sorted(list_models())


def test_patterns():
    assert list_models('odconv4x-resnet*_8xb32_in1k', exclude_patterns=['*-reduction4']) == [
        'odconv4x-resnet18-unshared_8xb32_in1k', 'odconv4x-resnet18_8xb32_in1k', 'odconv4x-resnet50_8xb32_in1k']
    assert list_models('rednet26') == ['rednet26_8xb32_in1k']
    assert list_models('*dcdc', exclude_patterns=['*fpn', 'dcdc-resnet']) == []
    assert list_models('no-such') == []


def test_tasks():
    by_task = {task: set(list_models(task=task)) for task in (
        'Image Classification', 'Object Detection', 'Instance Segmentation', 'Panoptic Segmentation')}
    assert by_task['Instance Segmentation'] < by_task['Object Detection']
    assert all(name.startswith('panoptic-fpn') for name in by_task['Panoptic Segmentation'])
    assert 'rednet152_8xb32_in1k' in by_task['Image Classification']  # which has no result
    assert set.union(*by_task.values()) == set(list_models())
    with pytest.raises(ValueError, match="task must be one of .*'Object Detection'.*, but is 'segmentation'"):
        list_models(task='segmentation')


def test_index(root):
    """Papers' figures are marked as such, and nothing claims weights."""
    entries = [entry for path in (root / 'configs').glob('*/metafile.yml') for entry in load(path)['Models']]
    assert all(re.match('No weights are published', entry['Weights']) for entry in entries)
    metrics = [name for entry in entries for result in entry.get('Results', []) for name in result['Metrics']]
    assert len(metrics) > 60 and all(' paper' in name for name in metrics)
    without = {entry['Name'] for entry in entries if 'Results' not in entry}
    assert without == {'rednet152_8xb32_in1k', 'htc_dcdc-r50_dcdc-fpn_1x_coco',
                       'dcd-mobilenet-v2-w075_8xb32_in1k', 'dcdc-resnet101_8xb32_in1k',
                       'faster-rcnn_kw1x-r50_fpn_1x_coco', 'faster-rcnn_kw4x-r50_fpn_1x_coco'}
    for entry in entries:
        costs = entry['Metadata']
        assert costs['Parameters'] > 1e6 and costs.get('FLOPs', costs.get('Backbone FLOPs')) > 5e7


def test_figures(root):
    """A few rows, as printed."""
    by_name = {entry['Name']: entry for path in (root / 'configs').glob('*/metafile.yml')
               for entry in load(path)['Models']}

    def metrics(name):
        return {key: value for result in by_name[name]['Results'] for key, value in result['Metrics'].items()}

    assert metrics('odconv8x-resnet18_8xb32_in1k') == {'Top 1 Accuracy (ODConv paper)': 74.08,
                                                       'Top 5 Accuracy (ODConv paper)': 91.44}
    assert metrics('dcd-resnet50_8xb32_in1k') == {'Top 1 Accuracy (DCD paper)': 77.9,
                                                  'Top 1 Accuracy (ODConv paper)': 76.92,
                                                  'Top 5 Accuracy (ODConv paper)': 93.46}
    # two papers, two recipes
    assert metrics('dcd-mobilenet-v2-w100_8xb32_in1k') == {'Top 1 Accuracy (DCD paper)': 75.2}
    assert metrics('dcd-mobilenet-v2-w100_8xb32-150e_in1k') == {'Top 1 Accuracy (ODConv paper)': 74.18,
                                                                'Top 5 Accuracy (ODConv paper)': 91.72}
    assert metrics('htc_dcdc-r50_dcdc-fpn_20e_coco') == {
        f'{kind} AP{size} (DCDC paper)': value
        for kind, values in (('box', (46.1, 28.9, 49.2, 60.7)), ('mask', (40.6, 21.1, 43.2, 58.8)))
        for size, value in zip(('', 'S', 'M', 'L'), values)}
    assert list(metrics('panoptic-fpn_rednet50_fpn_1x_coco').items())[:4] == [
        ('PQ (DCDC paper)', 42.4), ('PQ of things (DCDC paper)', 49.3), ('PQ of stuff (DCDC paper)', 32.0),
        ('SQ (DCDC paper)', 78.4)]
    assert metrics('dcdc-resnet101_8xb128-timm_in1k') == {'Top 1 Accuracy (DCDC paper)': 80.8}
    flops = by_name['odconv4x-resnet18_8xb32_in1k']['Metadata']['FLOPs']
    assert flops / 1e6 == pytest.approx(1916, rel=0.01)  # Table 2


def test_openmim_and_mmpretrain_read_the_index(root):
    model_index = pytest.importorskip('modelindex.load_model_index')
    index = model_index.load(str(root / 'model-index.yml'))
    index.build_models_with_collections()
    assert {model.name for model in index.models} == set(list_models())
    model, = (model for model in index.models if model.name == 'odconv4x-resnet50_8xb32_in1k')
    assert model.results[0].metrics == {'Top 1 Accuracy (ODConv paper)': 78.52, 'Top 5 Accuracy (ODConv paper)': 94.01}
    assert model.results[0].task == 'Image Classification' and 'No weights' in model.weights


def test_a_classifier():
    pytest.importorskip('mmpretrain')
    model = get_model(SMALL, device='cpu', **THIN)
    assert not model.training and model.head.fc.out_features == 3
    assert model.cfg.model.head.num_classes == 3 and len(model.dataset_meta['classes']) == 1000
    assert model(torch.rand(2, 3, 32, 32), mode='tensor').shape == (2, 3)
    assert get_model(SMALL).head.fc.out_features == 1000  # the index is not changed


def test_a_detector():
    pytest.importorskip('mmdet')
    with torch.device('meta'):
        model = get_model('retinanet_rednet50_fpn_1x_coco', bbox_head=dict(num_classes=5))
    assert model.bbox_head.num_classes == 5 and len(model.dataset_meta['classes']) == 80


def test_inference_as_the_first_thing(monkeypatch, root):
    """In a process that has built nothing of OpenMMLab before."""
    inference_detector = pytest.importorskip('mmdet.apis').inference_detector
    from mmengine.registry import DefaultScope
    monkeypatch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())
    model = get_model(root / 'configs' / 'demo' / 'faster-rcnn_odconv1x-r18-thin_fpn_digits.py')
    assert 'pred_instances' in inference_detector(model, np.zeros((48, 64, 3), np.uint8))


def test_a_config_file(root):
    pytest.importorskip('mmdet')
    path = root / 'configs' / 'demo' / 'faster-rcnn_odconv1x-r18-thin_fpn_digits.py'
    assert type(get_model(str(path)).backbone).__name__ == 'ODConvResNet'


def test_weights(tmp_path):
    pytest.importorskip('mmpretrain')
    torch.manual_seed(0)
    trained = get_model(SMALL, **THIN)
    path = tmp_path / 'model.pth'
    state_dict = {name: value for name, value in trained.state_dict().items() if not name.endswith('temperature')}
    torch.save(dict(state_dict=state_dict, meta=dict(epoch=3)), path)
    loaded, images = get_model(SMALL, pretrained=path, **THIN), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images, mode='tensor'), trained(images, mode='tensor'))
    with pytest.raises(CheckpointError, match=f'(?s)the weights do not fit {SMALL}:.*of another shape.*head.fc.weight'):
        get_model(SMALL, pretrained=path, backbone=dict(widen_factor=0.25))
    state_dict.pop('head.fc.bias')
    torch.save(state_dict, path)
    with pytest.raises(CheckpointError, match=r'missing \(1\): head.fc.bias'):
        get_model(SMALL, pretrained=path, **THIN)
    with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
        get_model(SMALL, pretrained=tmp_path / 'none.pth', **THIN)


def test_no_published_weights():
    with pytest.raises(ValueError, match='pretrained=True needs published weights, and this package has none'):
        get_model(SMALL, pretrained=True)


def test_unknown_name():
    with pytest.raises(ValueError, match="no network 'odconv4x-resnet34_8xb32_in1k'.*did you mean 'odconv4x-resnet"):
        get_model('odconv4x-resnet34_8xb32_in1k')
    with pytest.raises(ValueError, match=r"no network 'zzz', dynconv_mm.list_models\(\) lists all"):
        get_model('zzz')
    with pytest.raises(TypeError, match='model must be a name of .* the path of a config or a Config, but is 3'):
        get_model(3)


@pytest.mark.parametrize(('name', 'package'), [(SMALL, 'mmpretrain'), ('retinanet_rednet50_fpn_1x_coco', 'mmdet')])
def test_missing_package(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f'{name} is built on {package}, which is not installed'):
        get_model(name)


def test_not_installed(tmp_path, monkeypatch, request):
    request.addfinalizer(dynconv_mm.model_zoo._index.cache_clear)
    monkeypatch.setattr(dynconv_mm.model_zoo, 'FOLDER', tmp_path)
    dynconv_mm.model_zoo._index.cache_clear()
    with pytest.raises(FileNotFoundError, match='has no model index: install dynconv_mm'):
        list_models()

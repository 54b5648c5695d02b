"""The command line on small networks of every kind."""
import json
import os
import re

import pytest
import torch

pytest.importorskip('mmpretrain')


@pytest.fixture
def tool(load_tool):
    return load_tool('visualize_attention')


def written(folder) -> tuple[set, dict, str]:
    page = (folder / 'report.html').read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)  # one file
    return {path.stem for path in folder.glob('*.png')}, json.loads((folder / 'report.json').read_text()), page


@pytest.mark.parametrize('backbone, figures, numbers', [
    ('ODConvResNet', {'attention_means', 'attention_histograms'}, 'attentions'),
    ('CondConvResNet', {'attention_means', 'attention_histograms'}, 'attentions'),
    ('DCDResNet', {'phi_variance'}, 'phi'),
    ('DCDCResNet', {'kernel_maps'}, 'kernels'),
    ('RedNet', {'kernel_maps'}, 'kernels'),
])
def test_classifiers(tool, tiny_classifier, tmp_path, backbone, figures, numbers):
    config, checkpoint = tiny_classifier(backbone)
    out = tmp_path / 'out'
    tool.main([str(config), str(checkpoint), '--dataset', '--out', str(out), '--batch-size', '4', '--drawn', '2'])
    names, content, page = written(out)
    assert names == figures | {'grad_cam'}
    assert content['images'] == 6 and content[numbers]
    assert {layer.split('.')[0] for layer in content[numbers]} <= {'backbone', 'head'}
    assert len(content['grad_cam'][backbone]) == 2
    assert page.count('<h2>') == len(names)


def test_beside_a_static_network(tool, tiny_classifier, tmp_path):
    static, out = tiny_classifier('ResNet'), tmp_path / 'out'
    config, checkpoint = tiny_classifier('DyConvResNet')
    images = sorted((tmp_path / 'digits' / 'val').rglob('*.png'))
    arguments = [str(config), str(checkpoint), str(tmp_path / 'digits' / 'val' / 'one'), str(images[-1]), '--out',
                 str(out), '--static', *map(str, static)]
    (out / 'phi_variance.png').parent.mkdir()
    tool.main(arguments)
    (out / 'phi_variance.png').touch()  # of another network, replaced with all the rest
    tool.main(arguments)
    names, content, page = written(out)
    assert names == {'attention_means', 'attention_histograms', 'grad_cam'}
    assert list(content['grad_cam']) == ['ResNet', 'DyConvResNet']
    assert content['images'] == 4 and len(content['grad_cam']['ResNet']) == 4
    assert 'visualize_attention.py' in page


def test_beside_the_same_config(tool, tiny_classifier, tmp_path):
    config, checkpoint = map(str, tiny_classifier('ResNet'))
    tool.main([config, checkpoint, '--dataset', '--static', config, checkpoint, '--out', str(tmp_path / 'out')])
    cams = written(tmp_path / 'out')[1]['grad_cam']
    assert list(cams) == ['ResNet (1)', 'ResNet (2)'] and cams['ResNet (1)'] == cams['ResNet (2)']


@pytest.mark.slow
def test_several_networks_by_grad_cam_plus_plus(tool, tiny_classifier, tmp_path):
    """As ODConv's Fig. 5."""
    networks = {name: tuple(map(str, tiny_classifier(name))) for name in ('ResNet', 'DyConvResNet', 'ODConvResNet')}
    arguments = [*networks['ODConvResNet'], '--dataset', '--drawn', '3', '--out', str(tmp_path / 'out')]
    for name in ('ResNet', 'DyConvResNet'):
        arguments += ['--beside', *networks[name]]
    tool.main([*arguments, '--cam', 'grad-cam++'])
    names, content, page = written(tmp_path / 'out')
    assert list(content['grad_cam']) == ['ResNet', 'DyConvResNet', 'ODConvResNet'] and 'grad_cam' in names
    assert '<h2>Grad-CAM++</h2>' in page
    tool.main(arguments)
    assert '<h2>Grad-CAM</h2>' in written(tmp_path / 'out')[2]


def test_batch_size_and_selection(tool, tiny_classifier, tmp_path):
    """The numbers are the same whatever the batch size; of some images they are others."""
    config, checkpoint = tiny_classifier('ODConvResNet')
    found = []
    for options in (['--batch-size', '1'], ['--batch-size', '6'], ['--max-images', '2']):
        tool.main([str(config), str(checkpoint), '--dataset', '--out', str(tmp_path / 'out'), '--drawn', '1', *options])
        found.append(written(tmp_path / 'out')[1])
    means = [torch.tensor(content['attentions']['backbone.layer1.0.conv1']['channel']['element_mean'])
             for content in found]
    torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(means[0], means[2], rtol=1e-4, atol=1e-6)
    assert found[2]['images'] == 2


def test_detector(tool, root, digits, tmp_path):
    pytest.importorskip('mmdet')
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    from dynconv_mm.conversion import write_checkpoint
    config = Config.fromfile(root / 'configs/demo/retinanet_dcdc-r26-thin_dcdc-fpn_digits.py')
    init_default_scope(config.default_scope)
    config.val_dataloader.dataset.data_root = config.test_dataloader.dataset.data_root = str(digits)
    config.dump(tmp_path / 'detector.py')
    write_checkpoint(tmp_path / 'detector.pth', MODELS.build(config.model).state_dict())
    arguments = [str(tmp_path / 'detector.py'), str(tmp_path / 'detector.pth'), '--out', str(tmp_path / 'out'),
                 '--drawn', '1', '--batch-size', '2']
    tool.main([*arguments, '--dataset', '--layers', 'neck.fpn_convs.0.conv.lsa', 'backbone.layer1.0.conv2.gsi'])
    names, content, page = written(tmp_path / 'out')
    assert names == {'kernel_maps'} and content['images'] == 4
    assert any(name.startswith('neck.') for name in content['kernels'])
    assert 'Grad-CAM is left out' in page
    with pytest.raises(SystemExit, match="layers must be among those that predict kernels.*'none'"):
        tool.main([*arguments, str(digits / 'val'), '--max-images', '1', '--layers', 'none'])


class Payload:

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path), )


def test_checkpoints_that_are_refused(tool, tiny_classifier, tmp_path):
    config, checkpoint = tiny_classifier('ODConvResNet')
    other = tiny_classifier('DCDResNet')[1]
    torch.save(dict(state_dict=Payload(tmp_path / 'run')), tmp_path / 'code.pth')
    for path, message in ((other, 'do not fit the ImageClassifier'), (tmp_path / 'code.pth', 'was refused'),
                          (config, 'refused|no checkpoint'), (tmp_path / 'none.pth', 'there is no checkpoint')):
        with pytest.raises(SystemExit, match=rf'^visualize_attention: .*({message})'):
            tool.main([str(config), str(path), '--dataset', '--out', str(tmp_path / 'out')])
    assert not (tmp_path / 'run').exists() and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('change, message', [
    ([], 'one of both'), (['image.png', '--dataset'], 'one of both'), (['--dataset', '--drawn', '0'], '--drawn must'),
    (['--dataset', '--batch-size', '-1'], '--batch-size must be'), (['--dataset', '--max-images', '0'], '--max-images'),
    (['--dataset', '--out', '.'], 'is no report of this tool'),
])
def test_bad_options(tool, root, capsys, monkeypatch, tmp_path, change, message):
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit):
        tool.main(['a.py', 'a.pth', '--out', str(tmp_path / 'out'), *change])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('arguments, message', [
    (['--dataset', '--device', 'abacus'], '--device abacus cannot be used'),
    (['none.png'], "there is no image or folder 'none.png'"),
    (['--dataset', '--cam-layer', 'none'], 'layer must be the name of a module'),
])
def test_mistakes(tool, tiny_classifier, tmp_path, arguments, message):
    config, checkpoint = tiny_classifier('ResNet')
    with pytest.raises(SystemExit, match=f'^visualize_attention: .*{message}'):
        tool.main([str(config), str(checkpoint), '--out', str(tmp_path / 'out'), *arguments])


def test_missing_data_set(tool, tiny_classifier, tmp_path):
    config, checkpoint = tiny_classifier('ODConvResNet')
    (tmp_path / 'digits').rename(tmp_path / 'moved')
    with pytest.raises(SystemExit, match='^visualize_attention: .*digits'):
        tool.main([str(config), str(checkpoint), '--dataset', '--out', str(tmp_path / 'out')])

"""Networks come from their config and checkpoint alone, and images through their own pipeline."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from dynconv_mm.analysis.trained_model import (
    ImageFiles,
    batches,
    find_images,
    load_trained_model,
    pictures,
    preprocess,
)
from dynconv_mm.conversion import CheckpointError, write_checkpoint

pytest.importorskip('mmpretrain')


@pytest.fixture
def trained(tiny_classifier):
    return load_trained_model(*tiny_classifier('ODConvResNet'))


@pytest.fixture
def files(tmp_path):
    """Pictures of two sizes, in a folder and one below it, and something else."""
    folder = tmp_path / 'images'
    (folder / 'below').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (('b.png', (40, 50)), ('a.PNG', (33, 20)), ('below/c.jpg', (64, 64))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / 'notes.txt').write_text('no image')
    return folder


def test_load(trained):
    assert trained.is_classifier and not trained.model.training
    assert [trained.class_name(label) for label in (0, 2, 7)] == ['zero', 'two', 'class 7']


def test_weights_without_temperature(tiny_classifier):
    """As official checkpoints have them."""
    config, checkpoint = tiny_classifier('ODConvResNet')
    content = torch.load(checkpoint)
    state_dict = {name: value for name, value in content['state_dict'].items() if not name.endswith('temperature')}
    assert len(state_dict) < len(content['state_dict'])
    write_checkpoint(checkpoint, state_dict)
    trained = load_trained_model(config, checkpoint)
    assert trained.model.backbone.layer1[0].conv1.temperature == 1
    assert trained.classes == ()


def test_misfit(tiny_classifier):
    config, checkpoint = tiny_classifier('ODConvResNet')
    with pytest.raises(CheckpointError, match='(?s)do not fit the ImageClassifier of .*unexpected'):
        load_trained_model(tiny_classifier('DCDResNet')[0], checkpoint)
    with pytest.raises(FileNotFoundError, match='none.py'):
        load_trained_model('none.py', checkpoint)


def test_find_images(files):
    assert [path.name for path in find_images([files])] == ['a.PNG', 'b.png', 'c.jpg']
    assert [path.name for path in find_images([files / 'b.png', files / 'below'])] == ['b.png', 'c.jpg']
    with pytest.raises(FileNotFoundError, match='nowhere'):
        find_images([files / 'nowhere'])
    (files / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty has no images'):
        find_images([files / 'empty'])


def test_images_go_through_the_test_pipeline(trained, files):
    images = ImageFiles(trained.config, find_images([files]))
    found = list(batches(images, 2))
    assert [len(batch['inputs']) for batch in found] == [2, 1]
    assert preprocess(trained, found[0]).shape == (2, 3, 32, 32)
    picture = pictures(found[1])[0]
    assert picture.shape == (32, 32, 3) and picture.dtype == torch.uint8
    # what is shown is what is seen, with red first
    mean, std = (trained.model.data_preprocessor.mean, trained.model.data_preprocessor.std)
    torch.testing.assert_close(preprocess(trained, found[1])[0] * std + mean, picture.permute(2, 0, 1).float())


def test_unreadable_image(trained, files):
    images = ImageFiles(trained.config, [files / 'notes.txt'])
    with pytest.raises(ValueError, match='notes.txt cannot be read by the test pipeline'):
        images[0]


def test_gray_pictures():
    picture, = pictures(dict(inputs=[torch.arange(6.).view(1, 2, 3)]))
    assert torch.equal(picture, torch.arange(6).byte().view(2, 3, 1).expand(2, 3, 3))


def test_detectors_are_no_classifiers(root):
    pytest.importorskip('mmdet')
    from dynconv_mm.analysis.trained_model import TrainedModel
    config = Config.fromfile(root / 'configs/demo/retinanet_dcdc-r26-thin_dcdc-fpn_digits.py')
    assert not TrainedModel(config, torch.nn.Identity(), ()).is_classifier

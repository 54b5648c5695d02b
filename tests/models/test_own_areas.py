"""Attentions over each image's own area: an image in a padded batch gets those that it gets alone."""
from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from conv_layers import CHANNELS, LAYERS, make_layer, randomize
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from one_graph import needs_one_graph
from thin_networks import BACKBONES, settle
from torch import Tensor, nn

from dynconv_mm import CBAM, CondConv2d, DCDConv2d, ECALayer, ODConv2d, SELayer, average_own_areas
from dynconv_mm.models.own_areas import own_length, pooling_modules

LOCAL = ['Involution2d', 'PairwiseSelfAttention2d', 'LocalRelation2d', 'StandAloneSelfAttention2d', 'WEConv2d',
         'LSConv2d']
POOLING = {
    **{name: lambda name=name: make_layer(name) for name in LAYERS if name not in (*LOCAL, 'FDConv2d')},
    # whose 3×3 kernels weight frequency bands of the whole map besides
    'FDConv2d': lambda: make_layer('FDConv2d', kernel_size=1, padding=0),
    'ODConv2d pooled': lambda: randomize(ODConv2d(CHANNELS, CHANNELS, 3, padding=1, spatial_pool_size=2)),
    'DCDConv2d pooled': lambda: randomize(DCDConv2d(CHANNELS, 2 * CHANNELS, 3, padding=1)),
    'SELayer': lambda: randomize(SELayer(CHANNELS, ratio=2)),
    'CBAM': lambda: randomize(CBAM(CHANNELS, ratio=2, kernel_size=3)),
    'ECALayer': lambda: randomize(ECALayer(CHANNELS)),
}
SIZES = [(6, 5), (9, 4), (8, 7)]  # of images in a batch of 9×7


class Model(nn.Module):
    """What a toolbox's model is to this: it takes images, and what is known of them."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Tensor:
        return self.part(inputs)


def samples(sizes: list[tuple[int, int]]) -> list[SimpleNamespace]:
    return [SimpleNamespace(img_shape=size) for size in sizes]


def padded_batch(sizes: list[tuple[int, int]] = SIZES, channels: int = CHANNELS) -> Tensor:
    """Images with numbers beyond them that are unlike theirs."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(len(sizes), channels, *map(max, zip(*sizes)), generator=generator).double() + 3
    for image, (height, width) in zip(batch, sizes):
        image[:, :height, :width] -= 3
    return batch


def test_what_pools():
    for name in LAYERS:
        assert bool(pooling_modules(make_layer(name))) == (name not in LOCAL), name


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'training'])
@pytest.mark.parametrize('name', POOLING)
def test_equation(name, training):
    """The pixels that see nothing of the padding are those of the image alone, to rounding."""
    model = Model(POOLING[name]().double())
    model.train(training)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # else images see each other by the batch's statistics
    batch = padded_batch()
    with torch.no_grad():
        plain = model(batch, samples(SIZES))
        alone = [model(image[None, :, :height, :width]) for image, (height, width) in zip(batch, SIZES)]
        average_own_areas(model)
        own = model(inputs=batch, data_samples=samples(SIZES), mode='loss')
    margin = 3 if name == 'DCDC2d' else 1  # half of a 7×7 or a 3×3 convolution
    for y, z, other, (height, width) in zip(own, alone, plain, SIZES):
        inner = slice(None), slice(0, height - margin), slice(0, width - margin)
        torch.testing.assert_close(y[inner], z[0][inner], rtol=1e-10, atol=1e-10)
        assert (other[inner] - z[0][inner]).abs().max() > 1e-3, 'the padding does not matter, so that nothing is tested'


@pytest.mark.parametrize('name', POOLING)
def test_gradients(name):
    """Of a pixel that sees nothing of the padding, to the image alone and to the parameters."""
    torch.manual_seed(0)
    model = Model(POOLING[name]().double()).eval()
    average_own_areas(model)
    batch = padded_batch().requires_grad_()
    y = model(batch, samples(SIZES))[0, :, 0, 0]
    expected = model(batch[:1, :, :SIZES[0][0], :SIZES[0][1]])[0, :, 0, 0]
    variables = [batch, *model.parameters()]
    for ours, other in zip(torch.autograd.grad(y.square().sum(), variables, allow_unused=True),
                           torch.autograd.grad(expected.square().sum(), variables, allow_unused=True)):
        assert (ours is None) == (other is None)
        if ours is not None:
            torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


def test_rows_are_those_of_the_image_alone():
    """Behind 0 to 7 convolutions or poolings of stride 2, that round up."""
    for padded in (*range(1, 70), 320, 800, 1344):
        for image in range(1, padded + 1):
            alone, length = image, padded
            for _ in range(8):
                assert own_length(image, padded, length) == alone, (image, padded, length)
                if length == 1:
                    break
                alone, length = (alone + 1) // 2, (length + 1) // 2


def test_rows_of_other_strides():
    """A map of 14-pixel patches, and one that lost rows at its edges: those in which a part of the image lies."""
    assert [own_length(image, 448, 32) for image in (1, 14, 15, 224, 448)] == [1, 1, 2, 16, 32]
    assert [own_length(image, 100, 48) for image in (1, 50, 51, 100)] == [1, 24, 25, 48]


def test_full_images_and_unknown_ones_change_nothing():
    """To the bit."""
    model = Model(make_layer('ODConv2d 4x')).eval()
    batch = padded_batch().float()
    with torch.no_grad():
        expected = model(batch)
        average_own_areas(model)
        assert torch.equal(model(batch, samples([(9, 7)] * 3)), expected)
        assert torch.equal(model(batch), expected)
        assert not torch.equal(model(batch, samples(SIZES)), expected)
        assert torch.equal(model(batch), expected)
        assert torch.equal(model.part(batch), expected)


def test_a_call_that_fails_leaves_nothing():
    model = Model(make_layer('DyConv2d')).eval()
    average_own_areas(model)
    batch = padded_batch().float()
    expected = model.part(batch)
    with pytest.raises(ValueError, match='channels'):
        model(batch[:, :5], samples(SIZES))
    assert torch.equal(model.part(batch), expected)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['copy', 'pickle'])
def test_a_copy_has_its_own_areas(copied):
    model = Model(make_layer('DyConv2d')).eval()
    average_own_areas(model)
    other = copied(model)
    batch = padded_batch().float()
    expected, whole = model(batch, samples(SIZES)), model(batch)
    assert torch.equal(other(batch, samples(SIZES)), expected)
    nested = Model(nn.Identity())
    nested.part.register_forward_hook(lambda *_: other.part(batch))  # in a call of the one, a part of the other
    assert torch.equal(model(batch, samples(SIZES)), expected) and torch.equal(nested(batch), whole)


@pytest.mark.parametrize('name', ['ODConvResNet', 'KWResNet', 'CondConvResNet', 'DCDCResNet'])
def test_gradient_checkpointing(name):
    """What the backward pass computes again is over own areas too, after the model was called."""
    models = [Model(settle(BACKBONES[name](with_cp=with_cp, norm_eval=True))).double().train()
              for with_cp in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    sizes = [(40, 33), (64, 20), (17, 64)]
    batch, gradients = padded_batch(sizes, channels=3), []
    for model in models:
        average_own_areas(model)
        loss = model(batch, samples(sizes))[-1].square().mean()
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        whole = torch.autograd.grad(model(batch)[-1].square().mean(), list(model.parameters()))
        assert any((ours - other).abs().max() > 1e-3 * other.abs().max() for ours, other in zip(gradients[-1], whole))
    for ours, other in zip(*gradients):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


@needs_one_graph
def test_compiled():
    """Of each batch the sizes that it has."""
    model = Model(nn.Sequential(make_layer('ODConv2d 4x'), make_layer('CondConv2d'))).double().eval()
    average_own_areas(model)
    compiled = torch.compile(model, backend='aot_eager')
    batch = padded_batch()
    with torch.no_grad():
        for sizes in (SIZES, SIZES[::-1], [(9, 7)] * 3):
            torch.testing.assert_close(compiled(batch, samples(sizes)), model(batch, samples(sizes)))


def test_autocast():
    model = Model(make_layer('ODConv2d 4x')).eval()
    average_own_areas(model)
    batch = padded_batch().float()
    with torch.no_grad():
        expected = model(batch, samples(SIZES))
        with torch.autocast('cpu', torch.bfloat16):
            torch.testing.assert_close(model(batch, samples(SIZES)).float(), expected, rtol=.05, atol=.2)


class TwoStages(nn.Module):
    """The parts of a detector, by the names that they have there."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.Sequential(CondConv2d(CHANNELS, CHANNELS, 1), nn.AdaptiveAvgPool2d(1))
        self.pyramid = nn.ModuleList(nn.AdaptiveAvgPool2d(size) for size in ((1, 1), 2, 3, (None, 1)))
        self.indices = nn.AdaptiveMaxPool2d(1, return_indices=True)
        self.roi_head = nn.ModuleDict(dict(bbox_head=SELayer(CHANNELS), mask_head=CondConv2d(CHANNELS, CHANNELS, 1),
                                           semantic_head=CBAM(CHANNELS)))


def test_regions_and_pyramids_are_left_as_they_are():
    model = TwoStages()
    names = {id(module): name for name, module in model.named_modules()}
    assert [names[id(module)] for module in pooling_modules(model)] == [
        'neck.0.routing', 'neck.1', 'pyramid.0', 'roi_head.semantic_head.avg_pool', 'roi_head.semantic_head.max_pool']


@pytest.mark.parametrize(('inputs', 'data_samples', 'message'), [
    (padded_batch().float(), samples(SIZES[:2]), 'img_shape of each of 3 images'),
    (padded_batch().float(), samples([*SIZES[:2], (10, 7)]), r'no larger than \(9, 7\)'),
    (padded_batch().float(), [*samples(SIZES[:2]), SimpleNamespace()], 'a SimpleNamespace has none'),
    (list(padded_batch().float()), samples(SIZES), 'but are list: build it without OwnAreaAveraged'),
    (padded_batch().float()[:, None], samples(SIZES), r'but are \[3, 1, 8, 9, 7\]'),
], ids=['few', 'large', 'unknown', 'list', 'video'])
def test_inputs_of_which_the_areas_are_not_known(inputs, data_samples, message):
    model = Model(make_layer('DyConv2d'))
    average_own_areas(model)
    with pytest.raises(ValueError, match=message):
        model(inputs, data_samples)


def test_features_that_are_no_maps_of_the_images():
    class Clips(Model):
        """A model that works on halves."""

        def forward(self, inputs: Tensor, data_samples: list) -> Tensor:
            return self.part(torch.cat(inputs.chunk(2, 3)))

    model = Clips(make_layer('DyConv2d'))
    average_own_areas(model)
    with pytest.raises(ValueError, match=r'DyConvAttention got features \[6, 8, 9, 4\]|got features \[6, 8'):
        model(torch.randn(3, CHANNELS, 9, 8), samples(SIZES))


def test_models_that_cannot_average_so():
    with pytest.raises(ValueError, match='whole one, whose forward takes data_samples'):
        average_own_areas(BACKBONES['ODConvResNet']())
    with pytest.raises(ValueError, match='no attention that averages'):
        average_own_areas(Model(nn.Conv2d(3, 3, 1)))


# In mmdet.

LARGE, SMALL = (128, 160), (75, 96)


@pytest.fixture
def cfg(root) -> Config:
    pytest.importorskip('mmdet')
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    cfg = Config.fromfile(root / 'configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py')
    cfg.model.update(type='OwnAreaAveraged', module='FasterRCNN')
    return cfg


def images(*sizes: tuple[int, int]) -> dict:
    """A batch as a data loader puts it out, with a box in each image."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.structures import InstanceData
    generator = torch.Generator().manual_seed(0)
    return dict(
        inputs=[torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes],
        data_samples=[DetDataSample(
            metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1., 1.), img_id=index),
            gt_instances=InstanceData(bboxes=HorizontalBoxes(torch.tensor([[10., 12., 50., 60.]])),
                                      labels=torch.tensor([index]))) for index, size in enumerate(sizes)])


def seen(model: nn.Module) -> list[tuple[ODConv2d, Tensor, dict]]:
    """What the layers of a backbone get and attend to, from now on."""
    calls = []
    for layer in model.backbone.modules():
        if isinstance(layer, ODConv2d):
            layer.attention.register_forward_pre_hook(lambda _, args: calls.append([args[0]]), prepend=True)
            layer.register_attention_hook(lambda layer, found: calls[-1].extend((layer, found)))
    return calls


@pytest.mark.parametrize('mode', ['predict', 'loss'])
def test_a_detector_of_a_config(cfg, mode):
    """All of its attentions are those of the image's part of the map alone, in testing and in training."""
    model = MODELS.build(cfg.model)
    cfg.model.update(type=cfg.model.pop('module'))
    plain = MODELS.build(cfg.model)
    assert type(model) is type(plain) and model.state_dict().keys() == plain.state_dict().keys()
    model.init_weights()
    model.train(mode == 'loss')
    model.backbone.eval()
    calls = seen(model)
    data = model.data_preprocessor(images(LARGE, SMALL), mode == 'loss')
    model(**data, mode=mode)
    assert len(calls) == 16
    padded = tuple(data['inputs'].shape[2:])
    assert padded == LARGE
    for x, layer, found in list(calls):
        rows, columns = (own_length(*lengths) for lengths in zip(SMALL, padded, x.shape[2:]))
        assert (rows, columns) != x.shape[2:]
        alone, whole = (layer.compute_attentions(part[1:]) for part in (x[:, :, :rows, :columns], x))
        for name, attention in found.items():
            torch.testing.assert_close(attention[1:], alone[name])
            torch.testing.assert_close(attention[:1], layer.compute_attentions(x[:1])[name])
        assert any((whole[name] - alone[name]).abs().max() > 1e-4 for name in whole)


def test_augmentation_of_the_batch(cfg):
    """Images that the data preprocessor resized have the sizes that it says."""
    cfg.model.data_preprocessor.update(batch_augments=[dict(type='BatchSyncRandomResize', random_size_range=(64, 96))])
    model = MODELS.build(cfg.model)
    resize, = model.data_preprocessor.batch_augments
    resize._input_size = (64, 96)
    MessageHub.get_instance('own_areas').update_info('iter', 0)  # as of a runner
    sizes = []
    model.neck.register_forward_pre_hook(lambda *_: sizes.extend(areas(model).sizes))
    model.parse_losses(model(**model.data_preprocessor(images(LARGE, SMALL), True), mode='loss'))[0].backward()
    assert sizes == [(64, 96), (37, 57)]


def areas(model: nn.Module):
    return next(hook.__self__ for hook in model._forward_pre_hooks.values())


def test_test_time_augmentation(cfg):
    """Each augmented batch has its own sizes."""
    from mmdet.models import DetTTAModel
    model = DetTTAModel(module=cfg.model, tta_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=.5),
                                                                  max_per_img=5)).eval()
    sizes = []
    model.module.neck.register_forward_pre_hook(lambda *_: sizes.append(areas(model.module).sizes))
    batches = [images(LARGE, SMALL), images(SMALL, (60, 90))]
    for sample in (sample for batch in batches for sample in batch['data_samples']):
        sample.set_metainfo(dict(flip=False, flip_direction=None))
    with torch.no_grad():
        results = model.test_step({key: [batch[key] for batch in batches] for key in ('inputs', 'data_samples')})
    assert len(results) == 2 and sizes == [[LARGE, SMALL], [SMALL, (60, 90)]]

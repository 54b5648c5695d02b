"""mmsegmentation's networks on a dynamic backbone train and predict; dilations are as in its own ResNet."""
from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from dynconv_mm import ODConv2d
from dynconv_mm.models.backbones import ResNet

mmseg = pytest.importorskip('mmseg.models', reason='needs mmsegmentation, tested with 1.2.2: pip install '
                            'mmsegmentation ftfy regex', exc_type=ImportError)
SMALL = dict(stem_channels=8, base_channels=8)


@pytest.mark.parametrize('keys', [
    dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), contract_dilation=True),
    dict(dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1), multi_grid=(1, 2, 4)),
    dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), multi_grid=(1, 2, 4), contract_dilation=True),
], ids=['contract_dilation', 'multi_grid', 'both'])
@torch.no_grad()
def test_dilations(keys):
    theirs = mmseg.ResNetV1c(depth=50, out_indices=(2, 3), **SMALL, **keys)
    theirs.eval()  # which returns nothing
    ours = ResNet(50, out_indices=(2, 3), deep_stem=True, zero_init_residual=False, **SMALL, **keys).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=.1)
    own = dict(zip(ours.state_dict(), theirs.state_dict().values()))
    assert [value.shape for value in own.values()] == [value.shape for value in ours.state_dict().values()]
    ours.load_state_dict(own)
    x = torch.randn(1, 3, 65, 64)
    for y, expected in zip(ours(x), theirs(x)):
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize('base', ['example', 'deeplabv3/deeplabv3_r101-d16-mg124_4xb2-40k_cityscapes-512x1024.py'])
def test_training_and_prediction(base, root, tmp_path):
    path = next((root / 'examples' / 'mmsegmentation').glob('*.py'))
    if base != 'example':
        path, example = tmp_path / 'config.py', path.read_text(encoding='utf-8')
        path.write_text(example.replace('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', f'mmseg::{base}'),
                        encoding='utf-8')
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    config.model.backbone.update(depth=50, kernel_num=2, **SMALL)
    config.model.decode_head.update(in_channels=256, channels=8)
    config.model.auxiliary_head.update(in_channels=128, channels=8)
    config.model.data_preprocessor.update(size=(64, 64))
    model = MODELS.build(config.model)
    assert sum(isinstance(module, ODConv2d) for module in model.modules()) >= 45
    inputs = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = [mmseg_sample() for _ in inputs]
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), training=True)
    losses = model.train()(**data, mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(parameter.grad is not None for parameter in model.backbone.layer4.parameters())
    with torch.no_grad():
        predicted = model.eval()(**model.data_preprocessor(dict(inputs=inputs, data_samples=samples)), mode='predict')
    assert predicted[0].pred_sem_seg.data.shape == (1, 64, 64)


def mmseg_sample():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 19, (1, 64, 64))))
    sample.set_metainfo(dict(ori_shape=(64, 64), img_shape=(64, 64), pad_shape=(64, 64), padding_size=[0, 0, 0, 0]))
    return sample

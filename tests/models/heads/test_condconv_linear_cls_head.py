"""CondConvLinearClsHead is mmpretrain's LinearClsHead but for its layer, and copies as any module does."""
import copy
import pickle
import sys
from importlib.machinery import BuiltinImporter

import pytest
import torch
from mmengine.registry import MODELS

import dynconv_mm
from dynconv_mm.layers.condconv import CondConvLinear

CFG = dict(type='CondConvLinearClsHead', num_classes=3, in_channels=64)


@pytest.fixture
def heads():
    return pytest.importorskip('mmpretrain.models.heads')


@pytest.fixture
def head(heads):
    torch.manual_seed(0)
    return MODELS.build(CFG)


def test_is_a_linear_head(heads, head):
    assert isinstance(head, heads.LinearClsHead) and isinstance(head.fc, CondConvLinear)
    assert type(head).__name__ == 'CondConvLinearClsHead'
    assert {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()} == {
        'fc.weight': (8, 3, 64), 'fc.bias': (3, ), 'fc.routing.fc.weight': (8, 64, 1, 1), 'fc.routing.fc.bias': (8, )}
    assert MODELS.build(dict(CFG, kernel_num=2)).fc.weight.shape == (2, 3, 64)


def test_without_attention(heads):
    head, features = MODELS.build(dict(CFG, attention=False)), torch.randn(4, 64)
    assert set(head.state_dict()) == {'fc.weight', 'fc.bias'}
    torch.testing.assert_close(head((features, )), sum(features @ matrix.T for matrix in head.fc.weight) + head.fc.bias)


def test_scores(head):
    features = torch.randn(4, 64)
    assert torch.equal(head((features, )), head.fc(features))


def test_init_weights_gives_the_matrices_the_spread_of_a_linear_head(heads, head):
    for _ in range(2):
        assert abs(head.fc.weight.std() - .01) < .001 and not head.fc.bias.any()
        torch.nn.init.ones_(head.fc.weight)
        head.init_weights()


def test_loss_and_prediction(heads, head):
    structures = pytest.importorskip('mmpretrain.structures')
    samples = [structures.DataSample().set_gt_label(label) for label in (0, 2)]
    features = (torch.randn(2, 64), )
    loss = head.loss(features, samples)['loss']
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(head(features), torch.tensor([0, 2])))
    torch.testing.assert_close(torch.stack([sample.pred_score for sample in head.predict(features)]),
                               head(features).softmax(1))


def test_dropout_in_training_only(heads):
    head, features = dynconv_mm.CondConvLinearClsHead(dropout=0.5, num_classes=3, in_channels=64), (torch.ones(4, 64), )
    assert set(head.train().pre_logits(features).unique().tolist()) == {0., 2.}
    assert torch.equal(head.eval().pre_logits(features), features[0])


@pytest.mark.parametrize(('name', 'value'), [
    ('kernel_num', 0), ('kernel_num', 1.5), ('kernel_num', True), ('attention', 1), ('dropout', 1), ('dropout', -0.1),
    ('dropout', None)])
def test_bad_arguments(heads, name, value):
    with pytest.raises(ValueError, match=f'^{name} must be .* but is'):
        dynconv_mm.CondConvLinearClsHead(**{name: value}, num_classes=3, in_channels=64)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_it_can_be_copied(head, duplicate):
    twin, features = duplicate(head), (torch.randn(2, 64), )
    assert torch.equal(twin(features), head(features)) and type(twin) is type(head)
    assert twin.fc.weight is not head.fc.weight


def test_it_is_the_class(head):
    assert type(head) is dynconv_mm.CondConvLinearClsHead is dynconv_mm.models.heads.CondConvLinearClsHead


def test_without_mmpretrain(monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmpretrain']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [BuiltinImporter])  # finds no package
    with pytest.raises(ImportError, match='CondConvLinearClsHead is built on mmpretrain, which is not installed'):
        MODELS.build(CFG)

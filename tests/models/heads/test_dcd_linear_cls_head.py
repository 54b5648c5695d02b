"""DCDLinearClsHead is the released classifier, trains on a single sample, and copies as any module does."""
import copy
import pickle
import sys
from importlib.machinery import BuiltinImporter

import pytest
import torch
from golden import Golden
from mmengine.registry import MODELS

import dynconv_mm

CFG = dict(type='DCDLinearClsHead', num_classes=3, in_channels=64)


@pytest.fixture
def heads():
    return pytest.importorskip('mmpretrain.models.heads')


@pytest.fixture
def head(heads):
    torch.manual_seed(0)
    return MODELS.build(CFG)


def test_golden(heads):
    golden = Golden('dcd_cls')
    in_channels, num_classes = golden.meta['args']
    golden.check(MODELS.build(dict(CFG, in_channels=in_channels, num_classes=num_classes)), lambda x: (x, ))


def test_the_papers_build(heads, make_random, assert_equal_in_value_and_gradient):
    """Eq. 6 sample by sample: the matrix W(x) = Λ(x) W₀ + P Φ(x) Qᵀ, with the branch of 3.4."""
    head = MODELS.build(dict(CFG, in_channels=20, num_classes=7, variant='paper', squeeze_ratio=4))
    head = make_random(head.double())
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    # 3.2: L = ⌊20 / 2^⌊log₂ √20⌋⌋ = 5; 3.4: the first FC "reduces the number of channels by r"
    assert head.cls_q.weight.shape == (5, 20) and head.fc[0].weight.shape == (5, 20)

    def literal() -> torch.Tensor:
        logits = []
        for sample in x:
            hidden = (head.fc[0].weight @ sample).clamp(min=0)
            scale = (head.fc_scale.weight @ hidden + 3).clamp(0, 6) / 3
            phi = (head.fc_phi.weight @ hidden).reshape(5, 5)
            w = torch.diag(scale) @ head.cls.weight + head.cls_p.weight @ phi @ head.cls_q.weight
            logits.append(w @ sample + head.cls.bias)
        return torch.stack(logits)

    assert_equal_in_value_and_gradient(lambda: head((x, )), literal, {'x': x, **dict(head.named_parameters())})


def test_parameters_of_the_papers_build(heads):
    """MobileNetV2 (Table 3b): C = 1280, L = 1280 / 2⁵ = 40, s = 1280 / 16 = 80: (2C + L²) C / r of 3.4, P and Q."""
    head = MODELS.build(dict(type='DCDLinearClsHead', num_classes=1000, in_channels=1280, variant='paper'))
    added = sum(parameter.numel() for parameter in head.parameters()) - 1281 * 1000
    assert added == 80 * (1280 + 1000 + 40**2) + 40 * (1000 + 1280)


def test_is_a_head_of_mmpretrain(heads, head):
    structures = pytest.importorskip('mmpretrain.structures')
    assert isinstance(head, heads.ClsHead) and type(head).__name__ == 'DCDLinearClsHead'
    features = (torch.zeros(4, 8), torch.randn(4, 64))  # the last are taken
    samples = [structures.DataSample().set_gt_label(label) for label in (0, 2, 1, 1)]
    head.loss(features, samples)['loss'].backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    scores = torch.stack([sample.pred_score for sample in head.eval().predict(features)])
    torch.testing.assert_close(scores, head((features[1], )).softmax(1))


def test_it_is_the_class(head):
    assert type(head) is dynconv_mm.DCDLinearClsHead is dynconv_mm.models.heads.DCDLinearClsHead


def test_dropout_in_training_only(heads):
    head, features = MODELS.build(dict(CFG, dropout=.5)), (torch.ones(4, 64), )
    assert torch.equal(head.eval().pre_logits(features), features[0])
    assert set(head.train().pre_logits(features).unique().tolist()) == {0., 2.}


@pytest.mark.filterwarnings('ignore:An attention got a single sample')
@pytest.mark.parametrize('batch', [0, 1])
def test_small_batches_in_training_use_the_running_statistics(head, batch):
    before, features = copy.deepcopy(head.state_dict()), (torch.randn(batch, 64), )
    logits = head.train()(features)
    assert logits.shape == (batch, 3)
    torch.testing.assert_close(logits, head.eval()(features))
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize(('name', 'value'), [
    ('dropout', 1), ('dropout', '0.1'), ('dropout', True), ('num_classes', 0), ('num_classes', 3.),
    ('in_channels', -1), ('variant', 'bottleneck'), ('variant', None), ('squeeze_ratio', 0)])
def test_bad_arguments(heads, name, value):
    with pytest.raises(ValueError, match=rf'{name} must be'):
        MODELS.build(dict(CFG, **{name: value}))


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_it_can_be_copied(head, duplicate):
    twin, features = duplicate(head.eval()), (torch.randn(2, 64), )
    assert torch.equal(twin(features), head(features)) and type(twin) is type(head)
    assert twin.cls.weight is not head.cls.weight


def test_without_mmpretrain(monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmpretrain']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [BuiltinImporter])  # finds no package
    with pytest.raises(ImportError, match='DCDLinearClsHead is built on mmpretrain, which is not installed'):
        MODELS.build(CFG)

"""DropoutLinearClsHead is mmpretrain's LinearClsHead but for dropout in training, and copies as any module does."""
import copy
import pickle
import subprocess
import sys
from importlib.machinery import BuiltinImporter

import pytest
import torch
from mmengine.registry import MODELS

import dynconv_mm

CFG = dict(type='DropoutLinearClsHead', dropout=0.5, num_classes=3, in_channels=64)
FEATURES = (torch.ones(4, 64), )


@pytest.fixture
def heads():
    return pytest.importorskip('mmpretrain.models.heads')


@pytest.fixture
def head(heads):
    torch.manual_seed(0)
    return MODELS.build(CFG)


def test_is_a_linear_head(heads, head):
    assert isinstance(head, heads.LinearClsHead)
    assert type(head).__name__ == 'DropoutLinearClsHead'
    assert list(head.state_dict()) == ['fc.weight', 'fc.bias']


def test_dropout_in_training_only(heads, head):
    linear = heads.LinearClsHead(3, 64)
    linear.load_state_dict(head.state_dict())
    assert torch.equal(head.eval()(FEATURES), linear(FEATURES))
    head.train()
    assert not torch.equal(head(FEATURES), linear(FEATURES))
    dropped = head.pre_logits(FEATURES)
    assert set(dropped.unique().tolist()) == {0., 2.}
    assert 0.3 < (dropped == 0).float().mean() < 0.7


def test_without_dropout_nothing_changes(heads):
    head, linear = dynconv_mm.DropoutLinearClsHead(0, num_classes=3, in_channels=64).train(), heads.LinearClsHead(3, 64)
    linear.load_state_dict(head.state_dict())
    assert torch.equal(head(FEATURES), linear(FEATURES))


@pytest.mark.parametrize('dropout', [1, 1.5, -0.1, True, '0.1', None])
def test_bad_dropout(heads, dropout):
    with pytest.raises(ValueError, match=r'dropout must be in \[0, 1\), but is'):
        dynconv_mm.DropoutLinearClsHead(dropout, num_classes=3, in_channels=64)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_a_classifier_can_be_copied(heads, duplicate):
    registry = pytest.importorskip('mmpretrain.registry').MODELS
    model = registry.build(dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'), head=CFG, backbone=dict(
        type='ODConvResNet', depth=18, kernel_num=1, stem_channels=8, base_channels=8))).eval()
    twin = duplicate(model)
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(twin(image), model(image)) and type(twin.head) is type(model.head)
    assert twin.head.fc.weight is not model.head.fc.weight


def test_it_is_the_class(head):
    assert type(head) is dynconv_mm.DropoutLinearClsHead is dynconv_mm.models.heads.DropoutLinearClsHead


def test_without_mmpretrain(monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmpretrain']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [BuiltinImporter])  # finds no package
    with pytest.raises(ImportError) as missing:
        MODELS.build(CFG)
    assert 'DropoutLinearClsHead is built on mmpretrain, which is not installed' in str(missing.value)
    assert 'pip install "dynconv-mm[mmpretrain]"' in str(missing.value)


def test_import_of_the_package_leaves_mmpretrain_and_mmdet_alone():
    code = 'import sys, dynconv_mm; sys.exit(len({"mmpretrain", "mmdet"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0

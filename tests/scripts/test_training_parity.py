"""A small network of each method trains as its equations do: as scripts/reference_networks.py, in plain torch."""
from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip('mmpretrain')

STEPS = 3
NETWORKS = (
    'resnet18_8xb32_in1k', 'odconv4x-resnet18_8xb32_in1k', 'odconv1x-mobilenet-v2-w050_8xb32_in1k',
    'dyconv4x-mobilenet-v2-w050_8xb32_in1k', 'condconv8x-mobilenet-v2-w050_8xb32_in1k',
    'dwcondconv8x-resnet50_8xb128-timm_in1k', 'dcd-resnet18_8xb32_in1k', 'dcd-resnet50_8xb32_in1k',
    'dcd-mobilenet-v2-w050_8xb32_in1k', 'weightnet-resnet18_8xb32_in1k', 'cgc-resnet18_8xb32_in1k',
    'we-resnet18_8xb32_in1k', 'kw1x-resnet18_32xb128-300e_in1k', 'rednet26_8xb32_in1k', 'dcdc-resnet26_8xb32_in1k',
    'ddf-resnet50_8xb128-timm_in1k',
    'lrnet26_8xb32-130e_in1k', 'sa-resnet26_8xb32-130e_in1k', 'san10_8xb32_in1k', 'fdconv-resnet26',
)


@pytest.fixture
def parity(load_script):
    return load_script('training_parity')


@pytest.fixture
def reference_networks(load_script):
    return load_script('reference_networks')


@pytest.mark.first_is_quick('name')
@pytest.mark.parametrize('name', NETWORKS)
def test_losses_of_classifiers(parity, name):
    model = parity.classifier(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = parity.compare_classifier(model, parity.classifier_batches(STEPS), annealed=2)
    assert {kind: len(values) for kind, values in losses.items()} == dict(ours=STEPS, reference=STEPS, last_bit=STEPS)
    ours, band = (parity.differences(losses, kind) for kind in ('ours', 'last_bit'))
    assert all(difference <= max(1e-12, 300 * width) for difference, width in zip(ours, band)), (ours, band)
    assert not any(torch.equal(value, before[key]) for key, value in model.named_parameters()
                   if value.grad is not None and value.grad.any())
    assert len(set(losses['ours'])) == STEPS


def test_weights_and_statistics_after_a_step(parity, reference_networks):
    model, batches = parity.classifier(parity.IN_FULL), parity.classifier_batches(1)
    tensors, parameters = parity.copied(model)

    def loss(tensors, batch, temperature):
        weights = reference_networks.Weights(tensors, True, temperature, 0.1)
        labels = torch.cat([sample.gt_label for sample in batch['data_samples']])
        return reference_networks.cross_entropy(reference_networks.logits(weights, batch['inputs']), labels)

    annealing = parity.annealing_of(model, 2)
    parity.train_reference(loss, tensors, parameters, batches, annealing)
    parity.train_ours(model, batches, annealing)
    state = model.state_dict()
    for name, value in tensors.items():
        if not name.endswith('temperature'):
            torch.testing.assert_close(state[name], value.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.first_is_quick('what')
@pytest.mark.parametrize('what', ['momentum', 'weight_decay', 'temperature', 'dropout', 'activation'])
def test_a_difference_is_seen(parity, reference_networks, monkeypatch, what):
    """In the second loss, or the third where it takes two steps: each of these matters."""
    model = parity.classifier(parity.IN_FULL)
    if what == 'temperature':
        monkeypatch.setattr(reference_networks, 'temperature_at', lambda *_: 1.)
    elif what == 'dropout':
        model.head.dropout.p = 0.
        monkeypatch.setattr(parity, 'train_ours', lambda model, *rest, train=parity.train_ours: [
            setattr(model.head.dropout, 'p', 0.1), train(model, *rest)][1])
    elif what == 'activation':
        monkeypatch.setattr(reference_networks, 'sigmoid', lambda z: z.softmax(-1))
    else:
        monkeypatch.setattr(reference_networks, 'SGD', lambda parameters, sgd=reference_networks.SGD, **options: sgd(
            parameters, **{**options, what: 0.9 * options[what]}))
    losses = parity.compare_classifier(model, parity.classifier_batches(STEPS), annealed=2)
    ours, band = (max(parity.differences(losses, kind)) for kind in ('ours', 'last_bit'))
    assert ours > 1e-8 and ours > 100 * band


def test_losses_of_a_detector(parity):
    pytest.importorskip('mmdet')
    name, = parity.DETECTORS
    model = parity.detector(name)
    frozen = model.backbone.layer1[0].conv1.weight.clone()
    losses = parity.compare_retinanet(model, parity.detector_batches(STEPS))
    assert max(parity.differences(losses, 'ours')) <= 1e-10
    assert len(set(losses['ours'])) == STEPS and torch.equal(frozen, model.backbone.layer1[0].conv1.weight)


def test_temperature(reference_networks):
    assert [reference_networks.temperature_at(step, 10) for step in (0, 8, 9, 20)] == pytest.approx([27.1, 3.9, 1, 1])
    assert reference_networks.temperature_at(4, 10, 1, 0) == pytest.approx(.5)


def test_page(parity):
    """Its tables are those of the results, which are of all networks."""
    results = json.loads(parity.RESULTS.read_text())
    assert set(results) == {*parity.CLASSIFIERS, *parity.DETECTORS}
    page = parity.PAGE.read_text(encoding='utf-8')
    assert parity.page_with(page, 'training_parity', parity.parts(results)) == page
    for name, losses in results.items():
        assert [len(losses[kind]) for kind in ('ours', 'reference', 'last_bit')] == [parity.STEPS] * 3, name
        assert parity.differences(losses, 'ours')[0] <= 1e-12, name


def test_figure(parity):
    results = {name: dict(ours=[1., 2.], reference=[1., 2.1], last_bit=[1., 2.]) for name in NETWORKS[:5]}
    figure = parity.draw(results)
    assert len([axis for axis in figure.axes if axis.get_visible()]) == 5
    assert all(len(axis.lines) == 2 for axis in figure.axes[:5])

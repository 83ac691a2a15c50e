"""The linear probe: optimal, chosen on validation, independent of the features' scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.errors import DataError
from seamo_fast.tasks.probes.linear import PENALTIES, Probe, fit_probe

CLASSES = 3


def features(count: int, noise: float, seed: int = 0, width: int = 8) -> tuple[Tensor, Tensor]:
    """Features of three classes, along one axis each, with noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    values = F.one_hot(labels, width).float()
    return values + noise * torch.randn(count, width, generator=rng), labels


def accuracy(probe: Probe, part: tuple[Tensor, Tensor]) -> float:
    predicted = (part[0] @ probe.weight.T + probe.bias).argmax(1)
    return (predicted == part[1]).double().mean().item()


def test_separable_features_are_separated() -> None:
    train, val, test = (features(90, 0.05, seed) for seed in range(3))
    probe = fit_probe(train, val, CLASSES)
    assert probe.accuracy == accuracy(probe, val) == 1
    assert accuracy(probe, test) == 1


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_probe_is_the_optimum_of_its_objective(
    penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seamo_fast.tasks.probes.linear.PENALTIES", (penalty,))
    train = features(120, 0.8)
    probe = fit_probe(train, features(30, 0.8, 1), CLASSES)
    mean, std = train[0].double().mean(0), train[0].double().std(0)
    # the objective is written in standardised features
    weight = (probe.weight.double() * std).requires_grad_()
    bias = (probe.bias + probe.weight @ mean.float()).double().requires_grad_()
    logits = (train[0].double() - mean) / std @ weight.T + bias
    loss = F.cross_entropy(logits, train[1]) + penalty / 2 * weight.square().sum()
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-5


def test_scale_and_offset_of_features_do_not_matter() -> None:
    train, val, test = (features(90, 0.6, seed) for seed in range(3))
    plain = fit_probe(train, val, CLASSES)
    scale, offset = torch.logspace(-3, 3, 8), torch.linspace(-5, 5, 8)
    scaled = [(part[0] * scale + offset, part[1]) for part in (train, val, test)]
    other = fit_probe(scaled[0], scaled[1], CLASSES)
    assert (other.penalty, other.accuracy) == (plain.penalty, plain.accuracy)
    torch.testing.assert_close(
        scaled[2][0] @ other.weight.T + other.bias,
        test[0] @ plain.weight.T + plain.bias,
        rtol=1e-2,
        atol=1e-2,
    )


def test_validation_chooses_the_penalty() -> None:
    # more features than images: a weak penalty learns the noise
    train, val = features(30, 0.7, 0, width=200), features(300, 0.7, 1, width=200)
    assert fit_probe(train, val, CLASSES).penalty >= 1e-1
    # nothing but signal: no penalty is needed
    assert fit_probe(features(90, 0.01), features(90, 0.01, 1), CLASSES).penalty == PENALTIES[-1]


def test_a_constant_feature_does_no_harm() -> None:
    train, val = features(90, 0.05), features(90, 0.05, 1)
    train[0][:, 5] = val[0][:, 5] = 3.0
    probe = fit_probe(train, val, CLASSES)
    assert probe.accuracy == 1
    assert probe.weight.isfinite().all()


@pytest.mark.parametrize(("train", "val"), [(0, 6), (6, 0)])
def test_without_images_there_is_no_accuracy(train: int, val: int) -> None:
    with pytest.raises(DataError, match=f"{train} training and {val} validation images"):
        fit_probe(features(train, 0.1), features(val, 0.1), CLASSES)

"""Full finetuning: learning rates by layer, batches, determinism, choice of the epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from seamo_fast.errors import ConfigError, DataError
from seamo_fast.model import PRESETS
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.tasks import full
from seamo_fast.tasks.classifier import Classifier, predict
from seamo_fast.tasks.config import FinetuneConfig
from seamo_fast.tasks.datasets.eurosat import EUROSAT_MS
from seamo_fast.tasks.full import Epoch, batches, finetune, parameter_groups
from seamo_fast.tasks.samples import Samples

MS = EUROSAT_MS.subset(("B4", "B8")).with_statistics((1000.0, 2000.0), (300.0, 400.0), "test")
CONFIG = FinetuneConfig(data="", method="full", epochs=6, batch_size=7, blr=0.2, layer_decay=1)


def make_model() -> Classifier:
    torch.manual_seed(0)
    config = replace(PRESETS["tiny"], width=32, depth=3, heads=2, image_size=16, fusion="none")
    return Classifier(SeaMoBackbone(config, [MS], "pooled"), ["Forest", "River", "SeaLake"])


def make_samples(count: int, seed: int) -> Samples:
    """Three classes that differ in one band, much less than its noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 1500 + 300 * torch.randn(count, 2, 16, 16, generator=rng)
    images[:, 0] += 200 * labels[:, None, None]
    return Samples(images.clamp(0).to(torch.uint16), labels)


def test_layers_learn_at_their_rates() -> None:
    model = make_model()
    groups = parameter_groups(model, replace(CONFIG, layer_decay=0.5, weight_decay=0.3))
    rates = {
        id(parameter): (group["factor"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    parameters = dict(model.named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(rates) == len(parameters)
    expected = {
        "backbone.patch_embed.eurosat_ms.weight": (0.5**4, 0.3),
        "backbone.modality_embed.eurosat_ms": (0.5**4, 0.0),
        "backbone.date_embed.weight": (0.5**4, 0.0),
        "backbone.encoder.blocks.0.mlp.fc1.weight": (0.5**3, 0.3),
        "backbone.encoder.blocks.2.norm1.weight": (0.5, 0.0),
        "backbone.encoder.norm.bias": (1.0, 0.0),
        "head.weight": (1.0, 0.3),
        "head.bias": (1.0, 0.0),
    }
    assert {name: rates[id(parameters[name])] for name in expected} == expected


def test_an_epoch_sees_every_image_once_maybe_flipped() -> None:
    samples = make_samples(40, 0)
    stored = samples.images.clone()
    seen, flips = [], []
    for images, labels in batches(samples, CONFIG, epoch=3):
        for image, label in zip(images, labels, strict=True):
            forms = [image, image.flip(1), image.flip(2), image.flip(1, 2)]
            matches = [
                (number, form)
                for number, original in enumerate(samples.images)
                for form, flipped in enumerate(forms)
                if torch.equal(original, flipped)
            ]
            ((number, form),) = matches
            assert samples.labels[number] == label
            seen.append(number)
            flips.append(form)
    assert sorted(seen) == list(range(40))
    assert seen != sorted(seen)
    assert set(flips) == {0, 1, 2, 3}
    assert torch.equal(samples.images, stored)
    again = [labels for _, labels in batches(samples, CONFIG, epoch=3)]
    other = [labels for _, labels in batches(samples, CONFIG, epoch=4)]
    assert torch.equal(torch.cat(again), samples.labels[seen])
    assert not torch.equal(torch.cat(other), torch.cat(again))


def test_it_learns_and_ends_with_the_chosen_epoch() -> None:
    train, val = make_samples(42, 0), make_samples(30, 1)
    model = make_model()
    best, epochs = finetune(model, train, val, CONFIG, torch.float32)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert best == max(epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    assert best.val_accuracy > 0.8
    predicted = predict(model, val.images, torch.float32).argmax(1)
    assert (predicted == val.labels).double().mean().item() == best.val_accuracy


def test_an_early_epoch_can_be_the_best() -> None:
    train, val = make_samples(21, 0), make_samples(9, 1)
    # what is learnt makes validation worse: its labels are wrong
    val.labels = (val.labels + 1) % 3
    model = make_model()
    best, _ = finetune(model, train, val, CONFIG, torch.float32)
    assert best.number < 6
    predicted = predict(model, val.images, torch.float32).argmax(1)
    assert (predicted == val.labels).double().mean().item() == best.val_accuracy


def test_of_equally_accurate_epochs_the_one_with_the_least_loss_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = [(0.5, 3.0), (0.5, 1.0), (0.5, 2.0), (0.4, 0.5)]
    states = []

    def judge(model: Classifier, val: Samples, number: int, loss: float, _: torch.dtype) -> Epoch:
        states.append(model.head.weight.detach().clone())
        return Epoch(number, loss, *judged[number - 1])

    monkeypatch.setattr(full, "_judge", judge)
    model = make_model()
    config = replace(CONFIG, epochs=4)
    best, _ = finetune(model, make_samples(21, 0), make_samples(9, 1), config, torch.float32)
    assert best.number == 2
    assert torch.equal(model.head.weight, states[1])
    assert not torch.equal(states[1], states[2])


def test_the_same_seed_gives_the_same_weights() -> None:
    train, val = make_samples(21, 0), make_samples(9, 1)
    config = replace(CONFIG, epochs=2)
    weights = []
    for seed in (0, 0, 1):
        model = make_model()
        finetune(model, train, val, replace(config, seed=seed), torch.float32)
        weights.append(model.head.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_loss_that_is_kept_does_not_keep_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, step = [], full._step

    def note(*arguments: Any) -> torch.Tensor:
        kept.append(step(*arguments))
        return kept[-1]

    monkeypatch.setattr(full, "_step", note)
    config = replace(CONFIG, epochs=1)
    finetune(make_model(), make_samples(21, 0), make_samples(9, 1), config, torch.float32)
    assert [loss.requires_grad for loss in kept] == [False] * 3


def test_a_diverged_run_ends_with_advice() -> None:
    model = make_model()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(ConfigError, match="not finite in epoch 1; lower blr"):
        finetune(model, make_samples(9, 0), make_samples(9, 1), CONFIG, torch.float32)


def test_the_loss_of_an_epoch_is_the_mean_over_images(monkeypatch: pytest.MonkeyPatch) -> None:
    train, losses = make_samples(9, 0), iter([1.0, 4.0, 1.0, 4.0])
    monkeypatch.setattr(full, "_step", lambda *_: torch.tensor(next(losses)))
    config = replace(CONFIG, epochs=2)  # batches of 7 and 2
    _, epochs = finetune(make_model(), train, make_samples(6, 1), config, torch.float32)
    assert [epoch.loss for epoch in epochs] == [(7 * 1.0 + 2 * 4.0) / 9] * 2


@pytest.mark.parametrize(("train", "val"), [(0, 6), (6, 0)])
def test_without_images_there_is_no_accuracy(train: int, val: int) -> None:
    message = f"{train} training and {val} validation images; both need some"
    with pytest.raises(DataError, match=message):
        finetune(make_model(), make_samples(train, 0), make_samples(val, 1), CONFIG, torch.float32)
